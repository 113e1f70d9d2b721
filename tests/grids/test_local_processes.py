import errno
import os
import signal
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing
from tiny_task import TinyTask

from warmstart.errors import InputError, WorkFailedError
from warmstart.grids import local_processes
from warmstart.grids.local_processes import run_grid
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.key import RunKey
from warmstart.training.loop import Progress

if sys.platform != "win32":
    from multiprocessing import forkserver

KEYS = [RunKey("warm", seed) for seed in range(3)]


@pytest.fixture
def at_once(monkeypatch):
    """Processes are started for the least work."""
    monkeypatch.setattr(local_processes, "WORKER_COST", -1.0)


class Task(TinyTask):
    """Training does as it is told in one of the runs."""

    def train(self, model, context):
        if context.seed == 1:
            if self.act == "refuse":
                raise InputError("the network is not to the method's taste; choose another")
            if self.act == "fill":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 8.\nMore lines")
            if self.act == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        for epoch in range(3 if self.act != "talk" else 100_000):
            context.after_epoch(Progress(epochs=epoch + 1))
        return Progress(3, 3, float(torch.get_num_threads()), 0.0, "done")


def quietly(event):
    pass


def found(out, keys=KEYS):
    return {key: [row.test_loss for row in saved.rows] for key, saved in GridFolder(out).states(keys).items()}


def test_what_a_worker_imports_is_torch_and_little_else_and_it_collects_garbage_afterwards():
    imports = "import gc, sys, warmstart.grids.worker_imports; print(gc.isenabled(), *sys.modules)"
    found = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True).stdout
    collects, *loaded = found.split()
    assert collects == "True"
    assert "torch" in loaded
    heavy = {"scipy", "matplotlib", "sklearn", "pandas", "pyarrow", "datasets", "accelerate", "pytorch_optimizer"}
    assert heavy.isdisjoint(loaded)


def test_a_run_computes_with_the_threads_it_is_given_and_the_caller_gets_its_own_back(tmp_path):
    before = torch.get_num_threads()
    run_grid(Task(), KEYS[:1], GridFolder(tmp_path), jobs=1, threads=2, on_event=quietly)

    (saved,) = GridFolder(tmp_path).states(KEYS[:1]).values()
    assert saved.rows[0].train_accuracy == 2
    assert torch.get_num_threads() == before


def test_a_refusal_in_a_process_arrives_as_such_and_what_was_done_is_kept(tmp_path, at_once):
    with pytest.raises(InputError, match="not to the method's taste"):
        run_grid(Task("refuse"), KEYS, GridFolder(tmp_path), jobs=2, threads=1, on_event=quietly)

    run_grid(Task(), KEYS, GridFolder(tmp_path), jobs=1, threads=1, on_event=quietly)
    assert all(len(losses) == 2 for losses in found(tmp_path).values())


@pytest.mark.parametrize("jobs", [1, 2])
def test_too_little_memory_on_a_gpu_is_one_line_that_says_what_helps(tmp_path, jobs, at_once):
    with pytest.raises(WorkFailedError, match=r"^warm-seed1: .* 2\.00 GiB was asked for; use --jobs 1, or .*$"):
        run_grid(Task("fill"), KEYS, GridFolder(tmp_path), jobs=jobs, threads=1, on_event=quietly)


def test_little_work_is_done_without_starting_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(local_processes, "workers_cost_nothing", lambda: False)
    monkeypatch.setattr(local_processes, "_run_in_processes", None)
    states = run_grid(Task(), KEYS, GridFolder(tmp_path), jobs=2, threads=1, on_event=quietly)

    assert [len(states[key].rows) for key in KEYS] == [2, 2, 2]


def test_processes_give_what_this_one_gives_and_nothing_need_be_kept(tmp_path, at_once):
    here = run_grid(Task(), KEYS, GridFolder(tmp_path), jobs=1, threads=1, on_event=quietly)
    there = run_grid(Task(), KEYS, None, jobs=2, threads=1, on_event=quietly)

    assert list(there) == KEYS
    assert [[row.test_loss for row in there[key].rows] for key in KEYS] == list(found(tmp_path).values())
    assert {key: len(state.rows) for key, state in here.items()} == dict.fromkeys(KEYS, 2)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX's")
def test_a_process_that_is_killed_is_said_to_be(tmp_path, at_once):
    with pytest.raises(WorkFailedError, match="a worker process was killed, perhaps for lack of memory; try --jobs 1"):
        run_grid(Task("die"), KEYS, GridFolder(tmp_path), jobs=2, threads=1, on_event=quietly)


def test_a_listener_that_fails_ends_the_grid_rather_than_let_it_wait_for_ever(tmp_path, at_once):
    """results.csv is written as events arrive, so a full disk shows itself there."""

    def full(event):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device"):
        run_grid(Task("talk"), KEYS, GridFolder(tmp_path), jobs=2, threads=1, on_event=full)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_processes_start_ends_all_of_them(tmp_path, monkeypatch, number, at_once):
    """In the middle of a start, where the process is there and waits for what it has to do."""
    plain = forkserver.connect_to_new_process

    def interrupted(descriptors):
        process = plain(descriptors)
        os.kill(os.getpid(), number)
        return process

    def interrupt(number, frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(forkserver, "connect_to_new_process", interrupted)
    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            run_grid(Task("talk"), KEYS, GridFolder(tmp_path), jobs=2, threads=1, on_event=quietly)
        assert signal.getsignal(number) is interrupt
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert torch.multiprocessing.active_children() == []
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
