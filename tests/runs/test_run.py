import math
from dataclasses import asdict, fields
from itertools import pairwise

import pytest
import torch

from warmstart.comparison.settings import CompareSettings
from warmstart.data.load import load
from warmstart.errors import InputError
from warmstart.grids.collect import collect
from warmstart.processes import Team
from warmstart.runs import run as module
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def task(digits):
    def make(**settings):
        usual = {"stages": 2, "stage_size": 30, "until": 0.9, "device": "cpu", "threads": 1}
        chosen = CompareSettings.of({**usual, **settings})
        return ImageTask(digits, chosen.model, chosen, chosen, "cpu")

    return make


def quietly(event):
    pass


def finish(run, on_event=quietly):
    key = run.key
    settings = CompareSettings.of({"methods": key.method, "seeds": key.seed + 1, "optimizer": key.optimizer})
    return collect(settings, run.task.stages, {key: run.go_on(on_event)}, key.optimizer)


def numbers(results):
    """The rows as text but for times, so that NaN is equal to itself."""
    kept = ({key: value for key, value in asdict(row).items() if "seconds" not in key} for row in results.rows)
    return [{key: repr(value) for key, value in row.items()} for row in kept]


def test_a_task_travels_to_other_processes_without_what_lies_on_this_ones_device(task):
    task = task()
    task.training_examples(slice(0, 1))
    kind, given = task.__reduce__()

    mean, std = (tuple(values.tolist()) for values in task.normalisation)
    assert given == (
        task.images,
        task.model,
        task.recipe,
        task.stream,
        task.device,
        task.model_settings,
        task.diagnosed,
        task.validation,
        mean,
        std,
    )
    sent = {field.name: getattr(task, field.name) for field in fields(task)} | {"mean": mean, "std": std}
    assert vars(kind(*given)) == sent


def same_state(one, other):
    """Weights, buffers, the optimizer's state and the method's, bit for bit."""
    for ours, theirs in (
        (one.model.state_dict(), other.model.state_dict()),
        (one.state.of_method, other.state.of_method),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    mine, others = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert mine.keys() == others.keys()
    for key, state in mine.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, others[key][name]), name


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        ("cold", "sgd"),
        ("warm", "sam"),
        ("dash", "sgd"),
        ("dash", "adamw"),
        ("l2-init", "sgd"),
        ("shrink-perturb[variant=ash]", "sgd"),
        ("shrink-perturb[variant=dohare]", "sgd"),
        ("head-reset", "sam"),
        ("stateful_methods:SlowCopy", "sgd"),
        ("stateful_methods:SlowCopy", "sam"),
        ("stateful_methods:AgeAndRedraw", "sgd"),
        ("stateful_methods:AgeAndRedraw", "sam"),
        ("redo[tau=0.5,every=3]", "adamw"),
        ("continual-backprop[rate=0.01,maturity=2]", "muon"),
        ("self-normalized-resets[every=2,tau_max=3]", "sam"),
    ],
)
def test_a_run_that_was_stopped_inside_each_stage_gives_the_same_bits(tmp_path, task, monkeypatch, method, optimizer):
    task = task(until=1.0, max_epochs=5)  # at least 3 epochs a stage on any machine, so that each can be stopped in one
    through = Run(task, RunKey(method, 1, optimizer), None)
    whole = finish(through)
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)  # after every epoch

    def stop_in(stage):
        def on_event(event):
            if event.stage == stage and event.progress.epochs == 3 and event.finished_stage is None:
                raise StoppedError

        return on_event

    for stage in (1, 2):
        with pytest.raises(StoppedError):
            Run(task, RunKey(method, 1, optimizer), GridFolder(tmp_path)).go_on(stop_in(stage))
        torch.rand(5)  # another process would have another global random state
        going_on = Run(task, RunKey(method, 1, optimizer), GridFolder(tmp_path))
        assert (going_on.state.next_stage, going_on.state.inside.epochs) == (stage, 2)

        if stage == 1:
            with pytest.raises(StoppedError):
                going_on.go_on(stop_in(2))
        else:
            again = finish(going_on)

    assert numbers(again) == numbers(whole)
    same_state(going_on, through)
    assert again.runs[method, 1].reports == whole.runs[method, 1].reports
    assert (again.runs[method, 1].scores == whole.runs[method, 1].scores).all()


def test_an_optimizer_that_was_saved_with_other_groups_is_refused(tmp_path, task, monkeypatch):
    key = RunKey("warm", 0, "muon")
    finish(Run(task(), key, GridFolder(tmp_path, keeps_weights=True)))
    monkeypatch.setattr(ImageTask, "_head", lambda task, model: None)  # Muon had the output layer, too

    with pytest.raises(InputError, match="run muon-warm-seed0: its optimizer was saved with other groups"):
        Run(task(), key, GridFolder(tmp_path, keeps_weights=True))


def test_without_a_save_inside_the_stage_is_done_again_with_the_same_numbers(tmp_path, task):
    whole = finish(Run(task(), RunKey("dash", 0, "sgd"), None))

    def stop(event):
        if event.stage == 2 and event.progress.epochs == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        Run(task(), RunKey("dash", 0, "sgd"), GridFolder(tmp_path)).go_on(stop)
    going_on = Run(task(), RunKey("dash", 0, "sgd"), GridFolder(tmp_path))

    assert (len(going_on.state.rows), going_on.state.inside) == (1, None)
    assert numbers(finish(going_on)) == numbers(whole)


def test_a_run_that_is_done_does_nothing_more(tmp_path, task):
    first = finish(Run(task(), RunKey("warm", 0, "sgd"), GridFolder(tmp_path)))
    events = []

    assert numbers(finish(Run(task(), RunKey("warm", 0, "sgd"), GridFolder(tmp_path)), events.append)) == numbers(first)
    assert events == []


def test_methods_are_compared_on_the_same_split_first_weights_and_order(task):
    first = [numbers(finish(Run(task(stages=1), RunKey(name, 3, "sgd"), None)))[0] for name in ("cold", "warm", "dash")]
    for row in first:
        row.pop("method")

    assert first[0] == first[1] == first[2]
    other = numbers(finish(Run(task(stages=1), RunKey("cold", 4, "sgd"), None)))[0]
    assert other["test_loss"] != first[0]["test_loss"]


def test_a_row_says_what_happened(task):
    settings = {"stages": 3, "max_epochs": 2, "until": 1.0}
    results = finish(Run(task(**settings), RunKey("dash", 0, "sgd"), None))

    assert [row.train_examples for row in results.rows] == [30, 60, 90]
    assert [row.stage for row in results.rows] == [1, 2, 3]
    assert [row.steps for row in results.rows] == [2 * 2, 2 * 4, 2 * 6]  # batches of 16
    assert {row.status for row in results.rows} == {"max-epochs"}
    assert results.rows[0].method_seconds == 0
    assert all(row.method_seconds > 0 for row in results.rows[1:])
    assert set(results.runs["dash", 0].reports) == {2, 3}
    scores = results.runs["dash", 0].scores.double()
    assert scores.mean() == pytest.approx(results.rows[-1].test_accuracy)
    assert len(scores) == 360
    assert math.isnan(results.rows[0].old_accuracy)
    assert math.isnan(results.rows[0].newly_wrong)
    for before, row in pairwise(results.rows):
        assert row.test_accuracy == pytest.approx(before.test_accuracy + row.newly_right - row.newly_wrong)
        assert 0 < row.newly_right < 1
        assert 0 <= row.old_accuracy <= 1
    assert all(0 <= row.new_accuracy <= 1 for row in results.rows)


def test_a_run_that_diverges_ends_there_and_stays_ended(tmp_path, task):
    task = task(lr=1e10, momentum=0.0)
    results = finish(Run(task, RunKey("warm", 0, "sgd"), GridFolder(tmp_path)))
    events = []

    assert [row.status for row in results.rows] == ["diverged"]
    assert len(finish(Run(task, RunKey("warm", 0, "sgd"), GridFolder(tmp_path)), events.append).rows) == 1
    assert events == []


@pytest.mark.parametrize("lr", [3.0, 1e3, 1e6])
def test_a_network_that_is_all_but_lost_is_recorded_too_whatever_the_method(task, lr):
    """Losses that are huge, yet finite, must not end the whole grid when a method looks at their gradients."""
    results = finish(Run(task(lr=lr, max_epochs=2, stages=3), RunKey("dash", 0, "sgd"), None))

    assert len(results.rows) == 3 or results.rows[-1].status == "diverged"


def test_the_network_that_the_method_names_is_measured_and_batch_norm_is_recalibrated_on_it(task):
    run = Run(task(stages=1), RunKey("stateful_methods:SlowCopy", 0, "sgd"), None)
    row = finish(run).rows[0]
    slow = run.method.measured(run.model, run.state.of_method)
    assert not torch.equal(slow.features[0].weight, run.model.features[0].weight)
    found = run.task.measure(slow, run.task.stage_data(0, 1))
    of_trained = run.task.measure(run.model, run.task.stage_data(0, 1))
    assert (row.test_loss, row.recalibrated_test_accuracy) == (found.loss, found.recalibrated)
    assert row.test_loss != of_trained.loss


def test_a_network_is_prepared_before_its_optimizer_and_its_first_weights(task):
    run = Run(task(), RunKey("stateful_methods:AgeAndRedraw", 0, "sgd"), None)
    slopes = [name for name, layer in run.model.named_modules() if isinstance(layer, torch.nn.PReLU)]
    held = {parameter for group in run.optimizer.param_groups for parameter in group["params"]}
    plain = Run(task(), RunKey("warm", 0, "sgd"), None)
    assert slopes
    assert all(parameter in held for parameter in run.model.parameters())
    assert run.initial.keys() == plain.initial.keys() | {f"{name}.weight" for name in slopes}
    assert all(torch.equal(tensor, run.initial[name]) for name, tensor in plain.initial.items())
    assert run._fresh().state_dict().keys() == run.initial.keys()


def test_what_a_method_sees_differs_between_processes_and_is_refused(task):
    with pytest.raises(InputError, match="sees activations, which differ between processes: train in one process"):
        Run(task(), RunKey("stateful_methods:AgeAndRedraw", 0, "sgd"), None, Team(2))


def test_a_network_drawn_while_training_is_refused_since_a_resumed_run_could_not_repeat_it(task):
    with pytest.raises(InputError, match=r"stage\.fresh\(\) draws a network in on_new_data alone"):
        finish(Run(task(), RunKey("stateful_methods:Draws", 1, "sgd"), None))


def test_a_damaged_checkpoint_is_named(tmp_path, task):
    key = RunKey("warm", 0, "sgd")
    finish(Run(task(stages=1), key, GridFolder(tmp_path)))
    (file,) = key.folder(tmp_path).iterdir()
    file.write_bytes(file.read_bytes()[:1000])

    with pytest.raises(InputError, match=f"{file.name}: damaged checkpoint .*; delete it to compute it again"):
        Run(task(stages=1), key, GridFolder(tmp_path))
