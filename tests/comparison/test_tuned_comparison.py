"""`warmstart compare --tune N`: each method with as many trials, judged without the test set, tested on fresh seeds."""

import csv
import shutil
from collections import Counter

import numpy as np
import pytest

from commands import numbers, rows, start, wait_until, warmstart
from warmstart.comparison.settings import CompareSettings
from warmstart.data.load import load
from warmstart.storage.checkpoint import read_tensors

SMALL = ["--stages", "2", "--stage-size", "40", "--seeds", "3", "--until", "0.9", "--device", "cpu", "--threads", "1"]
GRID = [*SMALL, "--tune", "3", "--methods", "cold,dash"]


def trials(out):
    with (out / "tuning" / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def kill_when(pattern, out):
    """Start the comparison, and kill it as soon as there is such a file."""
    process = start("compare", *GRID, "--jobs", 1, "--out", out)
    wait_until(lambda: any(out.glob(pattern)))
    process.kill()
    process.communicate()
    assert process.returncode < 0  # it had not ended


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "out"
    assert warmstart("compare", *GRID, "--jobs", 1, "--out", out) == 0
    return out


def test_each_method_has_as_many_trials_and_the_best_is_chosen(tuned):
    for method in ("cold", "dash"):
        of_one = [trial for trial in trials(tuned) if trial["method"] == method]
        assert len(of_one) == 3
        assert of_one[0]["settings"] == method
        best = max(of_one, key=lambda trial: (float(trial["validation_accuracy"]), -int(trial["steps"])))
        assert [trial for trial in of_one if trial["chosen"] == "yes"] == [best]


def test_chosen_and_given_settings_are_tested_on_seeds_that_no_trial_had(tuned):
    chosen = {trial["settings"] for trial in trials(tuned) if trial["chosen"] == "yes"}

    assert {row["method"] for row in rows(tuned)} == chosen | {"cold", "dash"}
    assert {row["seed"] for row in rows(tuned)} == {"0", "1", "2"}
    assert {row["seed"] for row in rows(tuned / "tuning")} == {"10000"}


def test_networks_of_trials_take_no_space_once_they_are_judged(tuned):
    kept = {file: read_tensors(file, "model.") for file in tuned.rglob("checkpoint.safetensors")}
    assert {"tuning" in file.parts for file, tensors in kept.items() if not tensors} == {True}
    assert {"tuning" in file.parts for file, tensors in kept.items() if tensors} == {False}


def test_the_report_says_what_was_chosen_and_keeps_the_methods_names(tuned, capsys):
    page = (tuned / "report.html").read_text()
    assert "<h2>Tuning</h2>" in page
    assert "Each method was tuned: 3 trials, judged on" in page
    assert warmstart("report", tuned) == 0
    said = capsys.readouterr().out
    assert "tuned" in said
    assert said.index("cold ") < said.index("dash ")


def test_no_trial_sees_the_test_part(tmp_path):
    digits = load("digits")
    images, labels = digits.train_images.numpy()[:, 0], digits.train_labels.numpy()
    for name, answers in (("right", labels[1500:]), ("wrong", (labels[1500:] + 1) % 10)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "digits.npz"
        np.savez(file, x_train=images[:1500], y_train=labels[:1500], x_test=images[1500:], y_test=answers)
        assert warmstart("compare", "--data", file, *GRID, "--jobs", 1, "--out", tmp_path / name) == 0

    assert trials(tmp_path / "right") == trials(tmp_path / "wrong")
    means = [np.mean([float(row["test_accuracy"]) for row in rows(tmp_path / name)]) for name in ("right", "wrong")]
    assert means[0] > 0.6 > 0.2 > means[1]


def test_killed_while_tuning_and_while_testing_it_ends_with_the_undisturbed_numbers(tuned, tmp_path):
    out = tmp_path / "out"
    kill_when("tuning/runs/*/checkpoint.safetensors", out)
    kill_when("runs/*/checkpoint.safetensors", out)
    assert warmstart("compare", *GRID, "--jobs", 1, "--out", out) == 0

    assert numbers(out) == numbers(tuned)
    assert trials(out) == trials(tuned)


def test_a_method_may_be_added_with_trials_of_its_own(tuned, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(tuned, out)

    assert warmstart("compare", *SMALL, "--tune", 3, "--methods", "cold,dash,warm", "--jobs", 1, "--out", out) == 0

    assert trials(out)[:6] == trials(tuned)
    assert [row for row in numbers(out) if not row["method"].startswith("warm")] == numbers(tuned)
    assert {row["method"].partition("[")[0] for row in rows(out)} == {"cold", "dash", "warm"}


def test_trials_that_diverge_or_do_not_end_fail_and_are_said_to(tmp_path, capsys):
    words = ["--lr", "1e9", "--max-epochs", "2", "--until", "0.999", "--tune", "3", "--methods", "warm"]
    assert warmstart("compare", *SMALL[:6], *words, "--jobs", 1, "--out", tmp_path / "out") == 0

    assert {trial["status"] for trial in trials(tmp_path / "out")} == {"diverged", "given-up"}
    stages = Counter(row["method"] for row in rows(tmp_path / "out" / "tuning"))
    assert set(stages.values()) == {1}  # nothing is trained that cannot be chosen
    assert "warm: all trials failed" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tune", "1"], "tune is 1; it must be at least 2"),
        (["--tune", "3", "--test", "rotate"], "test is rotate, but tuning needs a test part that no trial sees"),
        (["--tune", "4"], "tune is 3 there and 4 now"),
        (["--tune", "3", "--lr", "0.1"], "lr is 0.001 there and 0.1 now"),
    ],
)
def test_what_does_not_fit_is_one_line(tuned, tmp_path, capsys, words, said):
    out = tmp_path / "out"
    shutil.copytree(tuned, out)

    assert warmstart("compare", *GRID, *words, "--jobs", 1, "--out", out) == 2

    assert said in " ".join(capsys.readouterr().err.split())
    assert numbers(out) == numbers(tuned)


def test_a_lost_folder_of_trials_is_named(tuned, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(tuned, out)
    shutil.rmtree(out / "tuning")

    assert warmstart("report", out) == 2
    assert "tuning holds no comparison" in " ".join(capsys.readouterr().err.split())


def test_a_dry_run_counts_the_trials_and_both_kinds_of_runs(tmp_path, capsys):
    assert warmstart("compare", *GRID, "--out", tmp_path / "out", "--dry-run") == 0

    said = capsys.readouterr().out
    assert "6 trials, then each method as chosen and as given" in said
    assert "18 runs left" in said
    assert not (tmp_path / "out").exists()


def test_a_test_that_is_left_open_does_not_rotate_where_methods_are_tuned():
    assert CompareSettings.of({"tune": 3}).test == "fixed"
    assert CompareSettings.of({"tune": 3, "test": None}).test == "fixed"
    assert CompareSettings.of({"tune": 3, "test": "next", "order": "given"}).test == "next"
