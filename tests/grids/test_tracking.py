import os
import sys
import threading

import pytest

from warmstart.errors import InputError
from warmstart.grids.tracking import registry, tracker
from warmstart.grids.tracking.registry import make_tracker
from warmstart.runs.results import StageResult
from warmstart.runs.run import Event, RunKey
from warmstart.training.loop import Progress

CONFIG = {
    "data": "digits",
    "methods": ["cold", "dash"],
    "seeds": 1,
    "stages": 2,
    "lr": 0.001,
    "image_size": None,
    "jobs": 2,
    "recorded": {"torch": "2.13.0"},
}
KEYS = [RunKey("cold", 0, "sgd"), RunKey("dash[alpha=0.1]", 0, "sgd")]
COLD, DASH = KEYS


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(tracker, "GATHER", 0.0)


def row(key, stage, status="done"):
    """Steps are 10 in stage 1 and 20 in stage 2."""
    return StageResult(
        data="digits",
        model="small-cnn",
        optimizer=key.optimizer,
        method=key.method,
        seed=key.seed,
        stage=stage,
        train_examples=50 * stage,
        test_accuracy=0.5 + stage / 10,
        test_loss=1.5,
        train_accuracy=1.0,
        steps=10 * stage,
        epochs=2,
        train_seconds=0.25,
        method_seconds=0.125,
        status=status,
    )


def events(key, stage, status="done"):
    """Two epochs, of which the second ends the stage."""
    done = row(key, stage, status)
    return [
        Event(key, stage, Progress(1, 5 * stage, 0.75)),
        Event(key, stage, Progress(2, 10 * stage, 1.0)),
        Event(key, stage, Progress(2, 10 * stage, 1.0), done),
    ]


def saved(*rows):
    return {"rows": [vars(each) for each in rows]}


def track(names, out, told, done=None, config=CONFIG):
    track = make_tracker(names, out=out, config=config, done=done)
    for event in told:
        track(event)
    track.close()


# --- what is recorded, whatever the tracker


class Shelf:
    """A tracker that remembers, and fails when told to."""

    def __init__(self):
        self.opened, self.points, self.ended, self.broken = [], {}, {}, False
        self.complete = None

    def __call__(self, comparison):
        self.comparison = comparison
        return self

    def open(self, run):
        self.opened.append(run)
        return ShelfRecord(self, run.name)

    def close(self, *, complete):
        self.complete = complete


class ShelfRecord:
    def __init__(self, shelf, name):
        self.shelf, self.name = shelf, name

    def log(self, points):
        if self.shelf.broken:
            raise ConnectionError("no route\nto host")
        self.shelf.points.setdefault(self.name, []).extend(points)

    def end(self, outcome):
        self.shelf.ended[self.name] = outcome


@pytest.fixture
def shelf(monkeypatch):
    shelf = Shelf()
    monkeypatch.setitem(registry.SERVICES, "wandb", shelf)
    return shelf


def curve(shelf, name, axis="optimizer_steps"):
    return [point.at for point in shelf.points[name] if point.axis == axis]


def test_epochs_lie_on_one_axis_of_steps_and_stages_on_another(tmp_path, shelf):
    track(["wandb"], tmp_path, [*events(COLD, 1), *events(DASH, 1), *events(COLD, 2)])

    assert curve(shelf, "sgd-cold-seed0") == [5, 10, 20, 30]
    assert curve(shelf, "sgd-cold-seed0", "stage") == [1, 2]
    (stage,) = [point for point in shelf.points["sgd-cold-seed0"] if (point.axis, point.at) == ("stage", 2)]
    assert stage.values == {
        "stage/test_accuracy": 0.7,
        "stage/test_loss": 1.5,
        "stage/train_accuracy": 1.0,
        "stage/train_examples": 100,
        "stage/steps": 20,
        "stage/epochs": 2,
        "stage/train_seconds": 0.25,
        "stage/method_seconds": 0.125,
    }
    assert shelf.ended == {"sgd-cold-seed0": "done", "sgd-dash[alpha=0.1]-seed0": "interrupted"}
    assert shelf.complete is False


def test_a_run_is_described_by_its_own_settings(tmp_path, shelf):
    track(["wandb"], tmp_path, events(DASH, 1))
    (run,) = shelf.opened
    own = {"method": "dash[alpha=0.1]", "seed": 0, "optimizer": "sgd"}
    assert run.settings == {"data": "digits", "stages": 2, "lr": 0.001, "torch": "2.13.0", **own}


def test_a_comparison_that_goes_on_goes_on_in_the_same_runs_and_records_nothing_twice(tmp_path, shelf):
    track(["wandb"], tmp_path, [*events(COLD, 1), *events(COLD, 2)[:1]])
    repeated = events(COLD, 2)  # the interrupted stage is trained again from where it was saved
    track(["wandb"], tmp_path, repeated, {COLD: saved(row(COLD, 1))})

    first, second = shelf.opened
    assert first.id == second.id
    assert (first.new, second.new) == (True, False)
    assert curve(shelf, "sgd-cold-seed0") == [5, 10, 20, 30]
    assert curve(shelf, "sgd-cold-seed0", "stage") == [1, 2]


def test_another_comparison_in_the_same_place_has_runs_of_its_own(tmp_path, shelf):
    track(["wandb"], tmp_path, events(COLD, 1))
    (tmp_path / "tracking" / "wandb.json").unlink()
    track(["wandb"], tmp_path, events(COLD, 1))
    first, second = shelf.opened
    assert first.id != second.id


def test_what_a_tracker_lacks_is_recorded_at_the_next_start(tmp_path, shelf):
    """Added later, or killed between a stage's checkpoint and its record."""
    track(["wandb"], tmp_path, [], {COLD: saved(row(COLD, 1), row(COLD, 2)), DASH: saved(row(DASH, 1))})
    assert curve(shelf, "sgd-cold-seed0", "stage") == [1, 2]
    assert curve(shelf, "sgd-cold-seed0") == [10, 30]
    assert shelf.ended == {"sgd-cold-seed0": "done", "sgd-dash[alpha=0.1]-seed0": "interrupted"}

    track(["wandb"], tmp_path, [], {COLD: saved(row(COLD, 1), row(COLD, 2)), DASH: saved(row(DASH, 1))})
    assert len(shelf.opened) == 2


def test_a_diverged_run_is_over(tmp_path, shelf):
    track(["wandb"], tmp_path, events(COLD, 1, status="diverged"))
    assert shelf.ended == {"sgd-cold-seed0": "diverged"}


def test_a_tracker_that_fails_is_said_to_once_and_catches_up_at_the_next_start(tmp_path, shelf, capsys):
    shelf.broken = True
    track(["wandb"], tmp_path, [*events(COLD, 1), *events(DASH, 1)])
    said = capsys.readouterr().err
    assert said.count("warning") == said.count("\n") == 1
    assert "wandb has stopped recording (ConnectionError: no route to host); the work goes on" in said

    shelf.broken = False
    track(["wandb"], tmp_path, [], {COLD: saved(row(COLD, 1)), DASH: saved(row(DASH, 1))})
    assert curve(shelf, "sgd-cold-seed0", "stage") == [1]


def test_a_tracker_that_hangs_holds_up_neither_the_work_nor_its_end(tmp_path, shelf, monkeypatch, capsys):
    released = threading.Event()
    monkeypatch.setattr(ShelfRecord, "log", lambda self, points: released.wait())
    monkeypatch.setattr(tracker, "CLOSING", 0.1)
    track(["wandb"], tmp_path, events(COLD, 1))
    released.set()
    assert "wandb has not taken everything within 0.1 s; the next start records" in capsys.readouterr().err


def test_no_tracker_is_fine(tmp_path):
    track([], tmp_path, events(COLD, 1))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_named_with_the_one_that_was_meant(tmp_path):
    with pytest.raises(InputError, match=r"tracker 'tensorbord' is unknown; did you mean 'tensorboard'\?"):
        make_tracker(["tensorbord"], out=tmp_path, config=CONFIG)


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_missing_package_gives_the_install_line(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"^{name} is not installed .*; pip install 'warmstart\[{name}\]'$"):
        make_tracker([name], out=tmp_path, config=CONFIG)


def test_a_damaged_journal_is_said_to_be(tmp_path, shelf):
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking" / "wandb.json").write_text("{")
    with pytest.raises(InputError, match=r"wandb.json is damaged; delete it"):
        make_tracker(["wandb"], out=tmp_path, config=CONFIG)


# --- the trackers themselves: an interrupted comparison of one run that goes on


def in_two_starts(name, out):
    track([name], out, [*events(COLD, 1), *events(COLD, 2)[:1]])
    track([name], out, events(COLD, 2), {COLD: saved(row(COLD, 1))}, {**CONFIG, "jobs": 1})


def test_tensorboard_shows_a_run_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    in_two_starts("tensorboard", tmp_path)
    read = EventAccumulator(str(tmp_path / "tensorboard" / "sgd-cold-seed0"))
    read.Reload()

    def scalars(name):
        return [(each.step, pytest.approx(each.value)) for each in read.Scalars(name)]

    assert scalars("stage/test_accuracy") == [(1, 0.6), (2, 0.7)]
    assert scalars("train/accuracy") == [(5, 0.75), (10, 1), (20, 0.75), (30, 1)]
    started = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"method" in started
    assert b"cold" in started


def test_mlflow_has_a_run_below_the_comparison(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    in_two_starts("mlflow", tmp_path)

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("warmstart")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    cold = runs.pop("sgd-cold-seed0")
    ((name, parent),) = runs.items()
    assert name.startswith(tmp_path.name)
    assert cold.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert cold.data.params["lr"] == "0.001"
    assert cold.info.status == parent.info.status == "FINISHED"

    def history(metric):
        return [(each.step, each.value) for each in client.get_metric_history(cold.info.run_id, metric)]

    assert history("stage/test_accuracy") == [(1, 0.6), (2, 0.7)]
    assert history("train/accuracy") == [(5, 0.75), (10, 1), (20, 0.75), (30, 1)]


def test_mlflow_that_cannot_be_reached_is_found_before_the_work(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"^mlflow at http://127.0.0.1:9: .* set MLFLOW_TRACKING_URI to a server"):
        make_tracker(["mlflow"], out=tmp_path, config=CONFIG)


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    yield wandb
    wandb.teardown()


def test_wandb_goes_on_in_the_same_run(tmp_path, monkeypatch, wandb, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    in_two_starts("wandb", tmp_path)

    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1  # run-ID.wandb
    text = [file.read_bytes() for file in files]
    assert all(b"stage/test_accuracy" in each and b"optimizer_steps" in each for each in text)
    assert capfd.readouterr() == ("", "")


def test_wandb_without_an_account_is_found_before_the_work_and_asks_nothing(tmp_path, wandb):
    with pytest.raises(InputError, match=r"^wandb is not logged in; run `wandb login`, or set WANDB_MODE=offline"):
        make_tracker(["wandb"], out=tmp_path, config=CONFIG)
