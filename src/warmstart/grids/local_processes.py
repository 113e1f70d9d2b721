"""Running a grid of runs, in this process or in parallel workers that end with it."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from warmstart.errors import WorkFailedError
from warmstart.grids.worker_server import worker_context, workers_cost_nothing
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.key import RunKey
from warmstart.runs.run import Event, Run
from warmstart.runs.state import RunState
from warmstart.runs.task import Task
from warmstart.training.devices import computing_with, memory_sufficing
from warmstart.training.energy import share_device

WORKER_COST = 0.5
"""Seconds that it takes to start the processes, about; less work than that is done in this process."""
EVENT_INTERVAL = 0.1
"""Seconds between two events of a run's epochs: as often as a display can be read."""

OnEvent = Callable[[Event], None]


def run_grid(
    task: Task, keys: Sequence[RunKey], folder: GridFolder | None, *, jobs: int, threads: int, on_event: OnEvent
) -> dict[RunKey, RunState]:
    """Run each run to its end from its last checkpoint, in ``jobs`` processes; 1 uses this process alone.

    The caller holds the folder's lock; without a folder nothing is saved. Events arrive in this process.

    Returns:
        The last state of each run.

    Raises:
        InputError: If a method or network refuses what it is given.
        WorkFailedError: If a process is killed, or a GPU runs out of memory.
    """
    if jobs == 1 or len(keys) <= 1:
        with computing_with(threads):
            return {key: _run(task, key, folder, on_event) for key in keys}
    done = {} if workers_cost_nothing() else _head_start(task, keys, folder, threads, on_event)
    if left := [key for key in keys if key not in done]:
        done |= _run_in_processes(task, left, folder, min(jobs, len(left)), threads, on_event)
    return {key: done[key] for key in keys}


class _TakesLongerError(Exception):
    """The work is worth worker processes."""


def _head_start(
    task: Task, keys: Sequence[RunKey], folder: GridFolder | None, threads: int, on_event: OnEvent
) -> dict[RunKey, RunState]:
    """Compute here for as long as starting workers would take; a run that is then unfinished is run again there."""
    began = time.monotonic()
    done: dict[RunKey, RunState] = {}

    def stop_when_long(event: Event) -> None:
        on_event(event)
        if time.monotonic() - began > WORKER_COST:
            raise _TakesLongerError

    with computing_with(threads), suppress(_TakesLongerError):
        for key in keys:
            done[key] = _run(task, key, folder, stop_when_long)
    return done


def _run(task: Task, key: RunKey, folder: GridFolder | None, on_event: OnEvent) -> RunState:
    last = 0.0

    def rarely(event: Event) -> None:
        nonlocal last
        if event.finished_stage is not None or time.monotonic() - last > EVENT_INTERVAL:
            last = time.monotonic()
            on_event(event)

    with memory_sufficing(key):
        return Run(task, key, folder).go_on(rarely)


def _run_in_processes(
    task: Task, keys: Sequence[RunKey], folder: GridFolder | None, jobs: int, threads: int, on_event: OnEvent
) -> dict[RunKey, RunState]:
    context = worker_context()
    parents_end, ours = context.Pipe(duplex=False)
    with _events_from_workers(context, on_event) as send:
        settled = (task, folder, jobs, threads, send, parents_end)
        pool = ProcessPoolExecutor(jobs, context, _start_worker, settled)
        try:
            with _interrupts_delayed():
                futures = {pool.submit(_work, key): key for key in keys}
            done = {futures[future]: _result(future) for future in as_completed(futures)}
        finally:
            ours.close()  # the workers end at once, whatever they are doing
            pool.shutdown(wait=True, cancel_futures=True)
    return done


@contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Delay interrupts while processes start: one that is interrupted halfway never finishes starting.

    The processes inherit the mask, so that only this process answers a Ctrl-C, which the terminal sends to all.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal arrives here
        yield
        return
    caught: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    if hasattr(signal, "pthread_sigmask"):
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


def _result(future: Future[RunState]) -> RunState:
    try:
        return future.result()
    except BrokenProcessPool:
        raise WorkFailedError("a worker process was killed, perhaps for lack of memory; try --jobs 1") from None


@dataclass(frozen=True)
class _EventSender:
    """Sends a worker's events to the parent."""

    pipe: Any
    lock: Any

    def __call__(self, event: Event) -> None:
        with self.lock:
            self.pipe.send(event)


@contextmanager
def _events_from_workers(context: Any, on_event: OnEvent) -> Iterator[_EventSender]:
    """Pass the workers' events to ``on_event`` in a thread of this process, until the last worker closes its pipe."""
    reader, writer = context.Pipe(duplex=False)
    failure: list[Exception] = []

    def listen() -> None:
        # After a failure the closed pipe makes the workers' next send fail, so that none blocks on a full pipe.
        with reader, suppress(EOFError):
            while not failure:
                event = reader.recv()
                try:
                    on_event(event)
                except Exception as error:  # such as a full disk
                    failure.append(error)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield _EventSender(writer, context.Lock())
    finally:
        writer.close()
        thread.join()
        if failure:
            raise failure[0]


_worker: tuple[Task, GridFolder | None, _EventSender] | None = None
"""In a worker: the task, the folder, and what sends events to the parent."""


def _start_worker(
    task: Task, folder: GridFolder | None, jobs: int, threads: int, send: _EventSender, parents_end: Connection
) -> None:
    global _worker
    _worker = (task, folder, send)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the workers
    threading.Thread(target=_exit_with_parent, args=(parents_end,), daemon=True).start()
    torch.set_num_threads(threads)
    share_device(jobs)


def _exit_with_parent(parents_end: Connection) -> None:
    """Wait for the pipe to close, which happens when the parent exits, even if it is killed."""
    multiprocessing.connection.wait([parents_end])
    os._exit(1)


def _work(key: RunKey) -> RunState:
    assert _worker is not None
    task, folder, send = _worker
    return _run(task, key, folder, send)
