import json
import re
import shutil

import numpy as np
import pytest
import torch

from commands import numbers, rows, start, wait_until, warmstart
from warmstart.data.paper_sets import PAPER_DATA
from warmstart.grids import estimate
from warmstart.grids.display import Display
from warmstart.grids.tracking.tensorboard import TensorBoardRecord
from warmstart.reproduction.reproduction import Reproduction
from warmstart.reproduction.settings import ReproduceSettings

SMALL = [
    *("--protocol", "reduced", "--model", "small-cnn", "--stages", 2, "--stage-size", 20, "--batch-size", 8),
    *("--max-epochs", 2, "--methods", "cold,dash,fire", "--optimizers", "sgd,sam", "--seeds", 2, "--jobs", 1),
    *("--device", "cpu", "--threads", 1),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty images to train on, twenty to test, as CIFAR-10's are."""
    random = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("data") / "small.npz"
    arrays = {}
    for part, count in (("train", 60), ("test", 20)):
        arrays[f"x_{part}"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 10
    np.savez(file, **arrays)
    return file


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    assert warmstart("reproduce", "cifar10", "--data", data, *SMALL, "--out", out) == 0
    return out


@pytest.fixture
def task(data, tmp_path):
    """Makes the task of a reproduction on these images, whichever data set they are called."""

    def task(dataset, model):
        given = {"dataset": dataset, "data": str(data), "model": model, "device": "cpu", "out": str(tmp_path / dataset)}
        settings = ReproduceSettings.of({**given, "protocol": "reduced", "stages": 2, "stage_size": 20})
        return Reproduction(settings, Display(quiet=True), verify=False).task

    return task


def test_images_are_normalised_by_the_authors_constants_where_they_have_some(task):
    cifar, svhn, unit = task("cifar10", "small-cnn"), task("svhn", "small-cnn"), task("cifar10", "mlp")

    mean, std = cifar.normalisation
    constants = PAPER_DATA["cifar10"].constants
    assert (mean.tolist(), std.tolist()) == (pytest.approx(constants[0]), pytest.approx(constants[1]))
    shown = cifar.training_examples(slice(0, 2))
    expected = (cifar.images.train_images[:2] / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(shown.normalised(shown.images), expected)

    assert PAPER_DATA["svhn"].constants is None
    assert svhn.normalisation[0].equal(svhn.images.channel_mean())
    assert svhn.normalisation[1].equal(svhn.images.channel_std())
    assert [values.tolist() for values in unit.normalisation] == [[0.0] * 3, [1.0] * 3]


def test_a_dry_run_says_what_it_will_cost_and_leaves_nothing(data, tmp_path, capfd):
    assert warmstart("reproduce", "cifar10", "--data", data, *SMALL, "--out", tmp_path / "out", "--dry-run") == 0
    shown = capfd.readouterr().out

    assert "warning: the data is incomplete: it has 60 of 50000" in shown
    assert "estimate: 12 runs left, about" in shown
    # Two epochs a stage of 3 and then 5 batches: 16 steps a run, and two runs.
    assert [line.split()[:4] for line in shown.splitlines() if line.startswith("sam")] == [
        ["sam", "cold", "2", "32"],
        ["sam", "dash", "2", "32"],
        ["sam", "fire", "2", "32"],
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rank", "shown"), [(0, " in one process; 2 share each batch\n"), (1, "")])
def test_of_processes_started_together_the_first_one_says_what_it_will_cost(
    data, tmp_path, capfd, monkeypatch, rank, shown
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    assert warmstart("reproduce", "cifar10", "--data", data, *SMALL, "--out", tmp_path / "out", "--dry-run") == 0
    out = capfd.readouterr().out
    assert shown in out
    assert bool(out) == bool(shown)


def test_there_is_a_row_for_each_stage_of_each_run(done):
    found = {(row["optimizer"], row["method"], row["seed"], row["stage"]) for row in rows(done)}

    assert len(rows(done)) == len(found) == 2 * 3 * 2 * 2
    assert {row["data"] for row in rows(done)} == {"cifar10"}


def test_the_table_has_ours_beside_the_published_figures(done):
    table = re.sub(" +", " ", (done / "table.md").read_text())

    assert "| sgd | last accuracy % | published | mean accuracy % | published |" in table
    assert "67.32 (0.51)" in table
    assert "| fire |" in table
    assert "difference" not in table  # another protocol: only orders can be compared
    assert "the data is incomplete: it has 60 of 50000 training images, 20 of 10000 test images" in table
    assert "Order by last accuracy:" in table


def test_the_report_shows_both_optimizers_in_one_file(done):
    page = (done / "report.html").read_text()

    assert "With SGD" in page
    assert "With SAM" in page
    assert page.count("<svg") >= 4
    assert page.count("https://arxiv.org/abs/2410.23495</a>") == 1
    for heading in ("<h3>DASH&#x27;s scales by layer", "<h3>Batch-norm statistics", "<h2>How to read this"):
        assert heading in page
    assert "warmstart reproduce cifar10 --protocol reduced" in page
    assert "http-equiv" not in page
    assert all(
        (done / f"{what}-{name}.png").stat().st_size > 1000 for what in ("accuracy", "steps") for name in ("sgd", "sam")
    )


def test_the_manifest_repeats_it(done, data, tmp_path):
    manifest = json.loads((done / "manifest.json").read_text())

    assert manifest["settings"]["recorded"]["torch"]
    (session,) = manifest["sessions"]
    assert session["ended"] == "done"
    assert session["device"]["kind"] == "cpu"
    program, command, *words = manifest["command"].split()
    again = [*words, "--data", data, "--out", tmp_path / "again", "--device", "cpu"]
    assert (program, command) == ("warmstart", "reproduce")
    assert warmstart(command, *again) == 0
    assert numbers(tmp_path / "again") == numbers(done)


def test_a_second_start_goes_on_and_methods_may_be_added(done, data, tmp_path, capfd):
    out = shutil.copytree(done, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/*.safetensors")}
    more = [*SMALL, "--methods", "cold,dash,fire,warm"]
    assert warmstart("reproduce", "cifar10", "--data", data, *more, "--out", out) == 0

    assert "going on: 12 of 16 runs are done" in capfd.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(json.loads((out / "manifest.json").read_text())["sessions"]) == 2


def test_a_start_that_is_refused_leaves_the_manifest_alone(done, data):
    before = (done / "manifest.json").read_bytes()

    assert warmstart("reproduce", "cifar10", "--data", data, *SMALL, "--out", done, "--stages", 3) == 2
    assert warmstart("reproduce", "cifar10", "--data", data, *SMALL, "--out", done, "--stages", 3, "--dry-run") == 2
    assert (done / "manifest.json").read_bytes() == before


def test_a_number_that_is_the_protocols_may_be_said_or_left_out(data, tmp_path):
    one = [*SMALL, "--methods", "warm", "--optimizers", "sgd", "--seeds", 1, "--data", data, "--out", tmp_path / "out"]
    assert warmstart("reproduce", "cifar10", *one) == 0
    at = one.index("--batch-size")
    assert warmstart("reproduce", "cifar10", *one[:at], *one[at + 2 :]) == 2  # the protocol's is another
    assert warmstart("reproduce", "cifar10", *one, "--stages", 2) == 0


def test_a_start_that_finds_no_cluster_settles_nothing(data, tmp_path, capfd):
    given = ["--data", data, *SMALL, "--out", tmp_path / "out"]
    assert warmstart("reproduce", "cifar10", *given, "--executor", "ray", "--ray-address", "127.0.0.1:9") == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_a_damaged_manifest_is_one_line(done, tmp_path, capfd):
    out = shutil.copytree(done, tmp_path / "out")
    (out / "manifest.json").write_text("{")

    assert warmstart("report", out) == 2
    assert "manifest.json is damaged" in capfd.readouterr().err


def test_a_protocol_with_a_schedule_goes_on_and_its_tracked_runs_end_as_done(data, tmp_path, monkeypatch):
    """Its milestones come back from config.yaml as a list; and the number of stages is the protocol's, not a flag."""
    outcomes = []
    monkeypatch.setattr(TensorBoardRecord, "end", lambda record, outcome: outcomes.append(outcome))
    half = [
        *("--protocol", "half", "--model", "small-cnn", "--stage-size", 20, "--max-epochs", 1, "--device", "cpu"),
        *("--methods", "warm", "--optimizers", "sgd", "--seeds", 1, "--data", data, "--out", tmp_path / "out"),
    ]

    assert warmstart("reproduce", "cifar10", *half, "--track", "tensorboard") == 0
    assert outcomes == ["done"]
    assert warmstart("reproduce", "cifar10", *half) == 0


def test_a_part_is_shown_as_a_part(done, data, tmp_path, capfd):
    out = tmp_path / "part"
    process = start("reproduce", "cifar10", "--data", data, *SMALL, "--out", out, "--stages", 3)
    wait_until(lambda: (out / "results.csv").exists() and len(rows(out)) >= 4)
    process.kill()
    process.communicate()

    assert warmstart("report", out) == 0
    assert "partial: complete runs so far: sgd" in capfd.readouterr().out
    assert "partial" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar11"], "data set 'cifar11' is unknown; did you mean 'cifar10'"),
        (
            ["svhn", "--data", "nowhere.mat"],
            "nowhere.mat: no such file or folder; accepted are train_",
        ),
        (["cifar10", "--data", "digits"], "digits: no such file or folder; accepted are cifar-10-batches-py"),
        (["cifar10", "--track", "tensorboard,tensorboard"], "track: 'tensorboard' appears twice"),
        (["tiny-imagenet"], "32x32"),
    ],
)
def test_wrong_input_is_one_line(data, tmp_path, capfd, arguments, message):
    given = arguments if "--data" in arguments else [*arguments, "--data", data]
    assert warmstart("reproduce", *given, *SMALL, "--out", tmp_path / "out") == 2

    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_a_gpu_that_is_too_small_is_found_before_the_work(monkeypatch):
    """The measured peak of one run, times the runs at a time, against what the card has."""
    from types import SimpleNamespace

    from warmstart.errors import InputError

    task = SimpleNamespace(device="cuda", model="vgg16", recipe=SimpleNamespace(batch_size=128))
    monkeypatch.setattr(estimate, "find_device", lambda name: torch.device("cuda:0"))
    card = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(estimate.torch.cuda, "get_device_properties", lambda device: card)
    estimator = object.__new__(estimate.Estimator)
    estimator._task, estimator.peak_memory = task, 3 * 2**30

    estimator.check_memory(2)
    with pytest.raises(InputError, match=r"3 runs at a time need about 9.0 GiB .* has 8.0 GiB .*use --jobs 2 or less"):
        estimator.check_memory(3)
