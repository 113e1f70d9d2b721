"""`torchrun ... warmstart compare`: every run over two processes, one folder, one table."""

import os
import subprocess
import sys

import pytest

from commands import SMALL, rows, warmstart

GRID = [*SMALL, "--model", "mlp", "--methods", "warm,dash", "--seeds", "1", "--max-epochs", "3"]


def torchrun(*arguments):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "warmstart",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=240, env=environment
    )


def test_two_processes_give_the_rows_of_one_and_go_on_where_one_stopped(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert warmstart("compare", *GRID, "--jobs", 1, "--out", alone) == 0
    # One method is trained by a process of its own, the other, in the same folder, by two processes.
    first = [word if word != "warm,dash" else "warm" for word in GRID]
    assert warmstart("compare", *first, "--jobs", 1, "--out", together) == 0

    done = torchrun("compare", *GRID, "--out", together)

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report: ") == 1  # the second process shows nothing
    assert "going on: 1 of 2 runs are done" in done.stderr
    assert "warning: processes is 2 now and was 1" in done.stderr
    for ours, theirs in zip(rows(together), rows(alone), strict=True):
        for column in ("method", "stage", "train_examples", "steps", "epochs"):
            assert ours[column] == theirs[column]
        assert float(ours["test_loss"]) == pytest.approx(float(theirs["test_loss"]), rel=0.02)


def test_an_error_of_the_first_process_ends_both(tmp_path):
    (tmp_path / "results.csv").write_text("of another program")

    done = torchrun("compare", *GRID, "--out", tmp_path)

    assert done.returncode != 0
    assert "holds a results.csv without config.yaml" in done.stderr
