import errno
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from commands import SMALL, numbers, rows, start, wait_for_plan, wait_until, warmstart
from warmstart.comparison.settings import CompareRecord
from warmstart.runs.key import RunKey

METHODS = ("cold", "dash", "shrink-perturb[variant=dohare]")
RUNS = len(METHODS) * 2
GRID = [*SMALL, "--methods", ",".join(METHODS)]
COLUMNS = (
    "data,model,optimizer,method,seed,stage,train_examples,test_accuracy,test_loss,train_accuracy,steps,epochs,"
    "train_seconds,method_seconds"
)
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A comparison from start to end in one process."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert warmstart("compare", *GRID, "--jobs", 1, "--out", out) == 0
    return out


def checkpoints(out):
    """Each run's file and when it was written."""
    return {file.parent.name: file.stat().st_mtime_ns for file in out.glob("runs/*/checkpoint.safetensors")}


def complete(out):
    """Runs whose last stage is in their checkpoint."""
    keys = [RunKey(method, seed, "sgd") for method in METHODS for seed in range(2)]
    saved = CompareRecord.read(out).grid_folder(out).states(keys)
    return {key.folder(out).name for key, run in saved.items() if len(run.rows) == 2}


def processes_of(group):
    """Ids of the living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_results_have_the_columns_of_the_contract_and_a_row_for_each_stage(undisturbed):
    header = (undisturbed / "results.csv").read_text().splitlines()[0]

    assert header.startswith(COLUMNS + ",")
    table = rows(undisturbed)
    places = [(row["method"], int(row["seed"]), int(row["stage"])) for row in table]
    assert places == [(method, seed, stage) for method in METHODS for seed in (0, 1) for stage in (1, 2)]
    for row in table:
        assert (row["data"], row["model"], row["optimizer"], row["status"]) == ("digits", "small-cnn", "sgd", "done")
        assert int(row["train_examples"]) == 30 * int(row["stage"])
        assert 0.1 < float(row["test_accuracy"]) < 1
        assert 0.9 <= float(row["train_accuracy"]) <= 1
        assert int(row["steps"]) == int(row["epochs"]) * -(-int(row["train_examples"]) // 16)


def test_the_folder_holds_what_the_contract_says(undisturbed):
    names = {file.name for file in undisturbed.iterdir()}

    assert {"config.yaml", "results.csv", "table.md", "report.html", "runs"} <= names
    assert not list(undisturbed.rglob("*tmp*"))
    assert len(checkpoints(undisturbed)) == RUNS
    table = (undisturbed / "table.md").read_text()
    assert all(method in table for method in METHODS)


def test_a_second_start_does_no_work_again(undisturbed, capfd):
    before, table = checkpoints(undisturbed), (undisturbed / "results.csv").read_bytes()

    assert warmstart("compare", *GRID, "--jobs", 2, "--out", undisturbed) == 0
    assert checkpoints(undisturbed) == before
    assert (undisturbed / "results.csv").read_bytes() == table
    assert f"going on: {RUNS} of {RUNS} runs are done" in capfd.readouterr().err


@posix
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_numbers(undisturbed, tmp_path, capfd):
    rng, out = random.Random(0), tmp_path / "out"
    done = set()
    for _ in range(3):
        process = start("compare", *GRID, "--jobs", 1, "--out", out)
        wait_for_plan(process)
        time.sleep(rng.uniform(0, 1.2))
        process.kill()
        process.communicate()
        assert complete(out) >= done
        done = complete(out)
    before = checkpoints(out)

    assert warmstart("compare", *GRID, "--jobs", 1, "--out", out) == 0
    assert numbers(out) == numbers(undisturbed)
    after = checkpoints(out)
    assert {name for name in after if before.get(name) == after[name]} == done  # only what was lost is done again
    assert not list(out.rglob(".*.warmstart-tmp"))
    if before:
        assert f"going on: {len(done)} of {RUNS} runs are done" in capfd.readouterr().err


@posix
def test_one_process_an_output_folder_and_ctrl_c_is_an_orderly_end(undisturbed, tmp_path, capfd):
    out = tmp_path / "out"
    process = start("compare", *GRID, "--jobs", 1, "--out", out)
    wait_for_plan(process)
    os.kill(process.pid, signal.SIGSTOP)

    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    assert warmstart("compare", *GRID, "--out", out) == 2
    message = capfd.readouterr().err
    assert f"is in use by another warmstart process (pid {process.pid})" in message
    assert message.count("\n") == 1
    assert {file: file.stat().st_mtime_ns for file in before} == before

    os.kill(process.pid, signal.SIGCONT)
    os.kill(process.pid, signal.SIGINT)
    stderr = process.communicate()[1]
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "warmstart: stopped; the same command goes on from here"
    assert "Traceback" not in stderr

    assert warmstart("compare", *GRID, "--jobs", 1, "--out", out) == 0
    assert numbers(out) == numbers(undisturbed)


@posix
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_processes_die_with_their_parent_and_on_ctrl_c(undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start("compare", *GRID, "--jobs", 2, "--out", out)
    wait_until(lambda: checkpoints(out))
    assert len(processes_of(process.pid)) >= 3
    process.kill()
    process.wait()
    wait_until(lambda: not processes_of(process.pid), seconds=10)
    process.stdout.close()
    process.stderr.close()

    process = start("compare", *GRID, "--jobs", 2, "--out", out)
    wait_for_plan(process)
    wait_until(lambda: len(processes_of(process.pid)) >= 3)  # the workers have begun to import
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stderr = process.communicate()[1]
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "warmstart: stopped; the same command goes on from here"
    assert "Traceback" not in stderr
    wait_until(lambda: not processes_of(process.pid), seconds=10)
    assert len(complete(out)) < RUNS

    assert warmstart("compare", *GRID, "--jobs", 1, "--out", out) == 0
    assert numbers(out) == numbers(undisturbed)


def test_methods_and_seeds_are_added_to_what_is_there(tmp_path):
    few = [*SMALL, "--seeds", 1, "--methods", "cold,dash", "--jobs", 1, "--out", tmp_path]
    assert warmstart("compare", *few) == 0
    first, before = numbers(tmp_path), checkpoints(tmp_path)

    assert warmstart("compare", *few, "--seeds", 2, "--methods", "warm,dash,cold") == 0
    more = numbers(tmp_path)
    assert len(more) == 3 * 2 * 2
    assert [row for row in first if row not in more] == []
    assert {name: checkpoints(tmp_path)[name] for name in before} == before

    assert warmstart("compare", *few, "--seeds", 2) == 2  # warm would be dropped
    assert numbers(tmp_path) == more


def test_the_config_of_a_comparison_repeats_it(undisturbed, tmp_path):
    config, out = undisturbed / "config.yaml", tmp_path / "again"

    assert warmstart("compare", config, "--methods", "dash", "--seeds", 1, "--jobs", 1, "--out", out) == 0
    assert numbers(out) == [row for row in numbers(undisturbed) if row["method"] == "dash" and row["seed"] == "0"]


def test_a_run_that_diverges_is_recorded_and_the_grid_goes_on(tmp_path, capfd):
    small = [*SMALL, "--seeds", 1, "--jobs", 1, "--out", tmp_path]
    assert warmstart("compare", *small, "--methods", "cold,shrink-perturb[noise_std=1e30]") == 0

    status = {(row["method"], row["stage"]): row["status"] for row in rows(tmp_path)}
    assert status["cold", "2"] == "done"
    assert status["shrink-perturb[noise_std=1e+30]", "2"] == "diverged"
    assert "(diverged in stage 2)" in " ".join(capfd.readouterr().err.split())
    assert "diverged" in (tmp_path / "table.md").read_text()


def test_a_grid_of_which_every_run_diverges_is_done_too(tmp_path):
    grid = [*SMALL, "--lr", 1e10, "--seeds", 2, "--methods", "cold,dash", "--jobs", 1, "--out", tmp_path]

    assert warmstart("compare", *grid) == 0
    assert [(row["stage"], row["status"]) for row in rows(tmp_path)] == [("1", "diverged")] * 4
    assert (tmp_path / "report.html").exists()


@posix
def test_a_full_disk_is_a_failure_from_which_one_goes_on(undisturbed, tmp_path, capfd):
    import resource

    grid, out = [*GRID, "--jobs", 1, "--out", tmp_path / "out"], tmp_path / "out"
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))  # config and results fit, a checkpoint does not
    try:
        code = warmstart("compare", *grid)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    last = capfd.readouterr().err.splitlines()[-1]
    assert code == 1
    assert os.strerror(errno.EFBIG) in last
    assert last.endswith("the same command goes on from here")
    assert checkpoints(out) == {}
    assert not list(out.rglob(".*.warmstart-tmp"))

    assert warmstart("compare", *grid) == 0
    assert numbers(out) == numbers(undisturbed)


def test_a_disk_that_fills_up_later_loses_nothing_that_was_done(undisturbed, tmp_path, capfd, monkeypatch):
    grid, out = [*GRID, "--jobs", 1, "--out", tmp_path / "out"], tmp_path / "out"
    plain = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert warmstart("compare", *grid) == 1
    monkeypatch.undo()
    last = capfd.readouterr().err.splitlines()[-1]
    assert "No space left on device" in last
    assert last.endswith("; fix it, and the same command goes on from here")
    done, before = complete(out), checkpoints(out)
    assert done

    assert warmstart("compare", *grid) == 0
    assert numbers(out) == numbers(undisturbed)
    assert all(checkpoints(out)[name] == before[name] for name in done)


OWN = """
from dataclasses import dataclass
from typing import ClassVar
import torch
from torch import nn
import warmstart as ws


def net(num_classes, in_channels, image_size):
    pixels = in_channels * image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.ReLU(), nn.Linear(16, num_classes))


@dataclass(frozen=True)
class Halve(ws.Method):
    factor: float = 0.5
    name: ClassVar[str] = "halve"

    def on_new_data(self, model, stage):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self.factor)
        return ws.Report(self.name, self.settings())
"""


def test_a_model_and_a_method_of_ones_own_work_in_processes_too(tmp_path, monkeypatch):
    (tmp_path / "our_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    methods = "warm,our_parts:Halve,our_parts:Halve[factor=1]"
    grid = [*SMALL, "--seeds", 1, "--until", 0.8, "--lr", 0.01, "--model", "our_parts:net", "--methods", methods]
    try:
        for jobs in (1, 2):
            assert warmstart("compare", *grid, "--jobs", jobs, "--out", f"jobs{jobs}") == 0
    finally:
        sys.modules.pop("our_parts", None)

    table = numbers(tmp_path / "jobs1")
    assert table == numbers(tmp_path / "jobs2")
    loss = {row["method"]: row["test_loss"] for row in table if row["stage"] == "2"}
    assert list(loss) == ["warm", "our_parts:Halve", "our_parts:Halve[factor=1.0]"]
    assert loss["our_parts:Halve"] != loss["warm"] == loss["our_parts:Halve[factor=1.0]"]
    assert {row["recalibrated_test_accuracy"] for row in table} == {"nan"}  # no batch norm in it
