"""Running a grid of runs on Ray: many machines, or this one; a run that loses its machine resumes on another."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warmstart.errors import InputError, WorkFailedError
from warmstart.grids.local_processes import OnEvent, run_grid
from warmstart.grids.record import Provenance
from warmstart.importing import describe
from warmstart.launch import available_cores
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.key import RunKey
from warmstart.runs.run import Event
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState
from warmstart.runs.task import Task
from warmstart.training.loop import Progress
from warmstart.wording import one_line

TRIES = 3
"""How often a run may lose its worker within one stage until the work fails."""
POLL = 0.2
"""Seconds between two requests for events."""
CANCEL_TIMEOUT = 10
"""Seconds that runs have to end when the work is stopped; after that Ray ends them."""
CONNECT_TIMEOUT = 10
"""Seconds that a cluster has to answer."""


@dataclass(frozen=True)
class Cluster:
    """A connected Ray cluster with room for a run."""

    ray: Any
    gpus: float
    threads: int

    def run(self, task: Task, keys: Sequence[RunKey], folder: GridFolder, on_event: OnEvent) -> dict[RunKey, RunState]:
        """Run each run to its end from its last checkpoint, with the numbers of a local run.

        The caller holds the folder's lock; it lies on a file system that all nodes share. The task is sent to each node
        once. Each finished stage is reported once, also where a worker is lost after saving it.

        Returns:
            The last state of each run.

        Raises:
            InputError: If nodes do not share the folder or differ in their versions, or a method or network refuses its
                input.
            WorkFailedError: If a run loses its worker `TRIES` times in one stage.
        """
        ray, folder = self.ray, folder.resolved()
        mailbox = _mailbox(ray)
        driver = _Driver(folder, Path.cwd(), Provenance.here(), self.threads, mailbox)
        shared = _put(ray, task)
        needs = {"num_cpus": self.threads, "num_gpus": self.gpus}
        work = ray.remote(_run_on_worker).options(**needs, max_retries=0, name="warmstart run")
        events = _Events(keys, folder, on_event)
        return _Grid(ray, lambda key: work.remote(shared, key, driver), mailbox, events).run(keys)


@contextmanager
def ray_cluster(address: str | None, *, gpus: float, threads: int) -> Iterator[Cluster]:
    """Connect to a cluster, or start one for the duration, and check that it has room for a run.

    Args:
        address: An existing cluster: ``auto``, ``host:port`` or ``ray://host:port``. None joins the one in
            ``RAY_ADDRESS`` (which a submitted job has), else starts one here. A process that is connected already
            keeps its connection.
        gpus: GPUs of a run; a fraction lets several share one.
        threads: Threads and CPUs of a run.

    Yields:
        The cluster.

    Raises:
        InputError: If Ray is not installed, or the cluster does not answer or has no room.
    """
    ray = _import_ray()
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise InputError(f"gpus_per_run is {gpus}; a run is given a fraction of one GPU, or a whole number of them")
    with _connection(ray, address) as ours:
        _check_room(ray, threads, gpus, ours)
        yield Cluster(ray, gpus, threads)


class _Events:
    """Passes events on, each finished stage once: a worker may be lost between saving a stage and reporting it."""

    def __init__(self, keys: Sequence[RunKey], folder: GridFolder, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._stages = {(key, row.stage) for key, state in folder.states(keys).items() for row in state.rows}
        self.losses: Counter[RunKey] = Counter()
        """How often each run has lost its worker in its current stage."""

    def forward(self, event: Event) -> None:
        if event.finished_stage is not None:
            if (event.key, event.stage) in self._stages:
                return
            self._stages.add((event.key, event.stage))
            self.losses[event.key] = 0
        self._on_event(event)

    def forward_missing(self, key: RunKey, rows: list[StageResult]) -> None:
        for row in rows:
            self.forward(Event(key, row.stage, Progress(row.epochs, row.steps, row.train_accuracy), row))


@dataclass
class _Grid:
    """The driver's side: the runs in progress and their results."""

    ray: Any
    start: Callable[[RunKey], Any]
    mailbox: Any
    events: _Events

    def run(self, keys: Sequence[RunKey]) -> dict[RunKey, RunState]:
        ray = self.ray
        done_runs: dict[RunKey, RunState] = {}
        running = {self.start(key): key for key in keys}
        try:
            while running:
                done, _ = ray.wait(list(running), timeout=POLL)
                for event in ray.get(self.mailbox.take.remote()):
                    self.events.forward(pickle.loads(event))
                for reference in done:
                    key = running.pop(reference)
                    if (state := self._state(key, reference)) is None:
                        running[self.start(key)] = key
                    else:
                        self.events.forward_missing(key, state.rows)
                        done_runs[key] = state
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=CANCEL_TIMEOUT)
            ray.kill(self.mailbox)
        return done_runs

    def _state(self, key: RunKey, reference: Any) -> RunState | None:
        """The result of a run; None if it has lost its worker and is to resume from its checkpoint."""
        lost = self.ray.exceptions
        try:
            state: RunState = self.ray.get(reference)
        except lost.RayTaskError as error:
            raise error.cause from error
        except (lost.WorkerCrashedError, lost.NodeDiedError, lost.OutOfMemoryError, lost.ObjectLostError) as error:
            self.events.losses[key] += 1
            count = self.events.losses[key]
            why = "for lack of memory" if isinstance(error, lost.OutOfMemoryError) else "killed, or its node failed"
            if count == TRIES:
                raise WorkFailedError(f"{key} has lost its worker {count} times in one stage ({why})") from None
            print(
                one_line(f"warning: {key} has lost its worker ({why}) and goes on from its checkpoint"), file=sys.stderr
            )
            return None
        except lost.RayError as error:
            raise WorkFailedError(f"Ray failed: {describe(error)}") from error
        return state


def _mailbox(ray: Any) -> Any:
    """An actor that holds workers' events until the driver fetches them; restarted empty if its node fails."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Mailbox:  # a local class is sent by value; with events as bytes its process need not import torch
        def __init__(self) -> None:
            self.events: list[bytes] = []

        def put(self, event: bytes) -> None:
            self.events.append(event)

        def take(self) -> list[bytes]:
            events, self.events = self.events, []
            return events

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(Mailbox).options(**options).remote()


@dataclass(frozen=True)
class _Driver:
    """What a worker needs to know about the driver."""

    grid: GridFolder
    current: Path
    """The driver's current folder: a user's own modules may lie there."""
    provenance: Provenance
    threads: int
    mailbox: Any

    def send(self, event: Event) -> None:
        """Send an event without waiting until it has arrived."""
        self.mailbox.put.remote(pickle.dumps(event))

    def check_node(self) -> None:
        """Check that this node shares the driver's folder and versions, and work in the driver's current folder."""
        node = socket.gethostname()
        if self.grid.claim is not None and not self.grid.claim.holds:  # the same path may exist on its own disk
            raise InputError(
                f"node {node} does not see {self.grid.path} as the driver does; "
                "put --out on a file system that all nodes of the cluster share"
            )
        for name, here in Provenance.here():
            if name != "processor" and here != (driver := getattr(self.provenance, name)):
                raise InputError(
                    f"node {node} has {name} {here} and the driver {driver}; "
                    "install the same versions on all nodes, or numbers would differ from node to node"
                )
        if self.current.is_dir():
            os.chdir(self.current)


def _run_on_worker(task: Task, key: RunKey, driver: _Driver) -> RunState:
    """On a worker: one run to its end, with all its stages, those of earlier tries included."""
    driver.check_node()
    return run_grid(task, [key], driver.grid, jobs=1, threads=driver.threads, on_event=driver.send)[key]


def _put(ray: Any, task: Task) -> Any:
    """Store the task with its tensors as arrays, which Ray maps into each worker's memory; tensors it would copy."""
    if ray.util.client.ray.is_connected():  # ray:// has a pickler of its own
        return ray.put(task)
    ray.util.register_serializer(Tensor, serializer=Tensor.numpy, deserializer=_read_only_tensor)
    try:
        return ray.put(task)
    finally:
        ray.util.deregister_serializer(Tensor)


def _read_only_tensor(array: Any) -> Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # the data is only read
        return torch.from_numpy(array)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # one line of ours on a lost worker, not fifteen of Ray's
    try:
        import ray
    except ImportError as error:
        raise InputError(f"Ray is not installed ({error}); pip install 'warmstart[ray]' on all nodes") from None
    return ray


@contextmanager
def _connection(ray: Any, address: str | None) -> Iterator[bool]:
    """Connect to a cluster or start one; True if it was started here, and ends with the work."""
    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    ours = address == "local"
    options = {"num_cpus": available_cores(), "include_dashboard": False} if ours else {}
    try:
        _require_listener(_running_here() if address == "auto" else address)
        with _sigterm_handler_kept():
            ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError) as error:
        if "AuthenticationError" in f"{error} {error.__cause__}":
            raise InputError(f"the Ray cluster at '{address}' asks for a token; set RAY_AUTH_MODE=token") from error
        raise InputError(
            f"no Ray cluster at '{address}' ({describe(error)}); start one with `ray start --head`, "
            "or leave the address out to use this machine"
        ) from error
    try:
        yield ours
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError if nothing listens at an address: Ray would try for minutes and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()


def _running_here() -> str:
    """The address that the last `ray start` on this machine recorded; that cluster may have ended since."""
    file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    return file.read_text().strip() if file.is_file() else "auto"


@contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by one that exits at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_room(ray: Any, threads: int, gpus: float, ours: bool) -> None:
    """Refuse or warn if no node can take a run: Ray would wait silently."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= gpus for node in nodes):
        return
    need = f"a run takes {threads} CPUs and {gpus:g} GPUs"
    if ours:
        (here,) = nodes
        has = f"this machine has {here.get('CPU', 0):g} and {here.get('GPU', 0):g}"
        raise InputError(f"{need}, and {has}; lower --threads or --gpus-per-run")
    print(one_line(f"warning: {need}, which no node of the cluster has; waiting for one that does"), file=sys.stderr)
