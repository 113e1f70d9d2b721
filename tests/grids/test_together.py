"""`torchrun ... warmstart compare`: every run over two processes, one folder, one table."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from commands import SMALL, rows, wait_until, warmstart

GRID = [*SMALL, "--model", "mlp", "--methods", "warm,dash", "--seeds", "1", "--max-epochs", "3"]
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "warmstart")
ACCELERATE = ("accelerate.commands.launch", "--num_processes", "2", "--multi_gpu", "--module", "warmstart")
"""Without --multi_gpu, Accelerate starts one process on a machine that has no GPU."""


def start(launcher, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_rows_of_one_and_go_on_where_one_stopped(tmp_path, launcher):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert warmstart("compare", *GRID, "--jobs", 1, "--out", alone) == 0
    # One method is trained by a process of its own, the other, in the same folder, by two processes.
    first = [word if word != "warm,dash" else "warm" for word in GRID]
    assert warmstart("compare", *first, "--jobs", 1, "--out", together) == 0

    code, out, err = finish(start(launcher, "compare", *GRID, "--out", together))

    assert code == 0, err[-3000:]
    assert out.count("report: ") == 1  # the second process shows nothing
    assert "going on: 1 of 2 runs are done" in err
    assert "warning: processes is 2 now and was 1" in err
    for ours, theirs in zip(rows(together), rows(alone), strict=True):
        for column in ("method", "stage", "train_examples", "steps", "epochs"):
            assert ours[column] == theirs[column]
        assert float(ours["test_loss"]) == pytest.approx(float(theirs["test_loss"]), rel=0.02)


def test_two_processes_tune_together_and_then_test_together(tmp_path):
    grid = [*GRID, "--methods", "cold,warm", "--tune", "2", "--until", "0.1"]  # which every trial reaches
    code, out, err = finish(start(TORCHRUN, "compare", *grid, "--out", tmp_path))

    assert code == 0, err[-3000:]
    assert out.count("report: ") == 1
    assert err.count("2 processes of") == 2  # the trials', and the comparison's
    assert len(rows(tmp_path / "tuning")) == 2 * 2 * 2
    assert {"cold", "warm"} <= {row["method"] for row in rows(tmp_path)}


def test_two_processes_go_on_together_to_the_seeds_that_a_look_adds(tmp_path):
    grid = [*GRID, "--methods", "cold,warm", "--seeds", "3", "--max-seeds", "4", "--margin", "0"]
    code, out, err = finish(start(TORCHRUN, "compare", *grid, "--out", tmp_path))

    assert code == 0, err[-3000:]
    assert out.count("report: ") == 1
    assert err.count("; not decided; seed 3 comes next") == 1
    assert {row["seed"] for row in rows(tmp_path)} == {"0", "1", "2", "3"}


def test_an_error_of_the_first_process_ends_both(tmp_path):
    (tmp_path / "results.csv").write_text("of another program")

    code, _, err = finish(start(TORCHRUN, "compare", *GRID, "--out", tmp_path))

    assert code != 0
    assert "holds a results.csv without config.yaml" in err


def test_what_processes_that_were_started_together_would_not_look_at_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for flags in (("--executor", "ray"), ("--jobs", "4")):
        assert warmstart("compare", *GRID, *flags, "--out", tmp_path / "out") == 2
        assert f"one run after the other: drop {' '.join(flags)}\n" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_with_a_killed_launcher_its_processes_end_and_the_folder_is_free(tmp_path):
    endless = [word if word != "3" else "1000000" for word in GRID]
    launcher = start(TORCHRUN, "compare", *endless, "--until", "1", "--lr", "1e-9", "--out", tmp_path / "out")
    wait_until(lambda: (tmp_path / "out" / "config.yaml").exists() or launcher.poll() is not None)
    workers = psutil.Process(launcher.pid).children(recursive=True)
    launcher.send_signal(signal.SIGKILL)

    assert len(workers) >= 2
    wait_until(lambda: not any(worker.is_running() for worker in workers))
    launcher.communicate()


def test_a_process_whose_launcher_ended_before_it_asked_ends_as_well(tmp_path):
    # Until then it imports; who adopts it is no launcher.
    orphan = (
        "import os, sys, time\n"
        "while os.getppid() == int(sys.argv[1]): time.sleep(0.01)\n"
        "from warmstart.launch import end_with_launcher\n"
        "end_with_launcher()\n"
        "time.sleep(60)\n"
        "open(sys.argv[2], 'w').close()\n"
    )
    launcher = (
        "import os, subprocess, sys\n"
        f"command = [sys.executable, '-c', {orphan!r}, str(os.getpid()), {str(tmp_path / 'outlived')!r}]\n"
        f"open({str(tmp_path / 'id')!r}, 'w').write(str(subprocess.Popen(command).pid))\n"
    )
    subprocess.run([sys.executable, "-c", launcher], env={**os.environ, "TORCHELASTIC_RUN_ID": "x"}, check=True)
    left = int((tmp_path / "id").read_text())
    wait_until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE)
    assert not (tmp_path / "outlived").exists()
