import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_task import TinyTask

from commands import wait_until
from warmstart.data.load import load
from warmstart.errors import InputError, WorkFailedError
from warmstart.grids import ray_cluster as on_ray
from warmstart.grids import record
from warmstart.grids.local_processes import run_grid
from warmstart.grids.ray_cluster import ray_cluster
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.storage import lock
from warmstart.storage.lock import FolderLock
from warmstart.streams.settings import StreamSettings
from warmstart.training.loop import Progress
from warmstart.training.recipe import Recipe

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
DIGITS = [RunKey(method, 0, "sgd") for method in ("cold", "dash")]
KEYS = [RunKey("warm", seed) for seed in (0, 1)]


# Tests that kill workers come last: to start others takes seconds.


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One for all tests of this file: a start takes seconds."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    here = [sys.modules[__name__], sys.modules[TinyTask.__module__]]
    for module in here:
        ray.cloudpickle.register_pickle_by_value(module)  # workers need not find these files
    yield
    for module in here:
        ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


@pytest.fixture(scope="module")
def digits():
    return ImageTask(
        load("digits"), "small-cnn", Recipe(max_epochs=4, lr=1e-2), StreamSettings(stages=3, stage_size=30)
    )


@dataclass
class Task(TinyTask):
    """Training does as it is told in the second stage."""

    folder: Path = Path()

    def train(self, model, context):
        if context.stage.number == 2:
            getattr(self, self.act or "nothing")(context)
        context.after_epoch(Progress(epochs=1, steps=3))
        return Progress(1, 3, float(torch.get_num_threads()), 0.0, "done")

    def nothing(self, context):
        pass

    def refuse(self, context):
        raise InputError("the network is not to the method's taste; choose another")

    def die(self, context):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self, context):
        context.after_epoch(Progress(epochs=1, steps=1))
        if context.seed == 0 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            self.die(context)

    def last(self, context):
        (self.folder / f"worker-{os.getpid()}").touch()
        while True:
            context.after_epoch(Progress(epochs=1, steps=1))
            time.sleep(0.05)


def go(task, keys, out, on_event=lambda event: None, threads=1):
    with ray_cluster(None, gpus=0, threads=threads) as cluster, FolderLock(out) as claim:
        cluster.run(task, keys, GridFolder(out, claim=claim), on_event)


def numbers(out, keys):
    runs = GridFolder(out).states(keys)
    return {
        key: [
            {name: value for name, value in vars(row).items() if not name.endswith("_seconds")}
            for row in runs[key].rows
        ]
        for key in keys
    }


def finished(events):
    return [(event.key, event.stage) for event in events if event.finished_stage is not None]


def test_a_grid_begun_here_ends_on_ray_with_the_numbers_of_one_that_never_left(tmp_path, digits):
    def stop(event):
        if event.finished_stage is not None:
            raise KeyboardInterrupt

    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    run_grid(digits, DIGITS, GridFolder(here), jobs=1, threads=1, on_event=lambda event: None)
    with pytest.raises(KeyboardInterrupt):
        run_grid(digits, DIGITS, GridFolder(there), jobs=1, threads=1, on_event=stop)
    events = []
    go(digits, DIGITS, there, events.append)

    assert numbers(there, DIGITS) == numbers(here, DIGITS)
    first, second = DIGITS
    assert sorted(finished(events), key=str) == [(first, 2), (first, 3), (second, 1), (second, 2), (second, 3)]


def test_the_stages_of_a_run_are_told_in_their_order(tmp_path):
    events = []
    go(Task(stages=40), KEYS[:1], tmp_path, events.append)
    assert finished(events) == [(KEYS[0], stage) for stage in range(1, 41)]


def test_a_run_computes_with_the_threads_it_is_given(tmp_path):
    go(Task(), KEYS[:1], tmp_path, threads=2)
    assert GridFolder(tmp_path).states(KEYS[:1])[KEYS[0]].rows[0].train_accuracy == 2


def test_a_refusal_on_a_worker_arrives_as_it_was_said(tmp_path):
    with pytest.raises(InputError, match=r"^the network is not to the method's taste; choose another$"):
        go(Task("refuse"), KEYS[:1], tmp_path)


def test_a_folder_that_a_node_does_not_see_is_found_before_anything_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "write_text", lambda file, text: file.write_text("another folder of that name"))
    with pytest.raises(InputError, match=r"does not see .* put --out on a file system that all nodes of the cluster"):
        go(Task(), KEYS[:1], tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_node_with_another_torch_is_refused(tmp_path, monkeypatch):
    here = record.Provenance.here()
    old = SimpleNamespace(here=lambda: here.model_copy(update={"torch": "1.0"}))
    monkeypatch.setattr(on_ray, "Provenance", old)
    with pytest.raises(
        InputError, match=r"^node \S+ has torch \S+ and the driver 1.0; install the same versions on all nodes"
    ):
        go(Task(), KEYS[:1], tmp_path)


@pytest.mark.parametrize(("threads", "gpus"), [(3, 0), (1, 0.5)])
def test_a_run_that_this_machine_has_no_room_for_is_refused_rather_than_waited_for(threads, gpus):
    machine = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    with pytest.raises(InputError, match=f"a run takes {threads} CPUs and {gpus} GPUs, and this machine has 2 and 0"):
        on_ray._check_room(machine, threads, gpus, ours=True)


def test_a_cluster_may_still_grow(capsys):
    on_ray._check_room(SimpleNamespace(nodes=lambda: []), 1, 1, ours=False)
    assert "which no node of the cluster has; waiting for one that does" in capsys.readouterr().err


def test_gpus_are_shared_or_whole():
    refused = pytest.raises(InputError, match=r"gpus_per_run is 1.5; a run is given a fraction of one GPU, or a whole")
    with refused, ray_cluster(None, gpus=1.5, threads=1):
        pass


def test_a_killed_worker_costs_its_run_nothing_but_time(tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    run_grid(Task(), KEYS, GridFolder(here), jobs=1, threads=1, on_event=lambda event: None)
    events = []
    go(Task("die_once", folder=there), KEYS, there, events.append)

    assert numbers(there, KEYS) == numbers(here, KEYS)
    assert sorted(finished(events), key=str) == [(key, stage) for key in KEYS for stage in (1, 2)]
    told = "warning: warm-seed0 has lost its worker (killed, or its node failed) and goes on from its checkpoint\n"
    assert capsys.readouterr().err == told


def test_a_run_that_loses_every_worker_is_given_up_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "TRIES", 2)  # workers take seconds to start
    with pytest.raises(WorkFailedError, match=r"^warm-seed0 has lost its worker 2 times in one stage \(killed"):
        go(Task("die"), KEYS[:1], tmp_path)
    assert len(GridFolder(tmp_path).states(KEYS[:1])[KEYS[0]].rows) == 1


def test_an_interruption_leaves_no_run_behind_and_the_cluster_alone(tmp_path):
    def interrupt(event):
        if len(list(tmp_path.glob("worker-*"))) == len(KEYS):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(Task("last", folder=tmp_path), KEYS, tmp_path, interrupt)
    workers = [int(file.name.removeprefix("worker-")) for file in tmp_path.glob("worker-*")]
    wait_until(lambda: not any(psutil.pid_exists(worker) for worker in workers))
    assert ray.is_initialized()


ALONE = """
import sys
from pathlib import Path
from test_ray_cluster import KEYS, Task, go

folder = Path(sys.argv[1])
try:
    go(Task("last", folder=folder), KEYS[:1], folder)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_cluster_of_ones_own_is_silent_and_ends_with_an_interruption(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", ALONE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: process.poll() is not None or list(tmp_path.glob("worker-*")))
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does in a terminal

    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 130
    wait_until(lambda: not any(child.is_running() for child in family))


def test_an_address_where_nobody_is_gives_one_line_at_once():
    unconnected = SimpleNamespace(is_initialized=lambda: False)
    with (
        pytest.raises(InputError, match=r"^no Ray cluster at 'ray://127.0.0.1:9' \(ConnectionRefusedError.*ray start"),
        on_ray._connection(unconnected, "ray://127.0.0.1:9"),
    ):
        pass


def test_a_cluster_that_has_ended_is_not_waited_for_though_its_address_is_still_there(tmp_path, monkeypatch):
    unconnected = SimpleNamespace(is_initialized=lambda: False)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9\n")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    refused = pytest.raises(InputError, match=r"^no Ray cluster at 'auto' \(ConnectionRefusedError.*ray start")
    with refused, on_ray._connection(unconnected, "auto"):
        pass
