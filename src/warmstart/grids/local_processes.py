"""Running a grid of runs, here or in parallel processes that die with this one."""

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
from pathlib import Path
from typing import Any

import torch

from warmstart.errors import WorkFailedError
from warmstart.grids.worker_server import worker_context
from warmstart.runs.key import RunKey
from warmstart.runs.run import Event, Run
from warmstart.runs.state import RunState
from warmstart.runs.task import Task
from warmstart.training.devices import too_little_memory

WORKER_COST = 0.5
"""Seconds that it takes to start the processes, about: less work is done in this one."""
QUIET = 0.1
"""Seconds between two events of a run's epochs: more often nobody can read."""

OnEvent = Callable[[Event], None]


def run_grid(
    task: Task, keys: Sequence[RunKey], out: Path | None, *, jobs: int, threads: int, on_event: OnEvent
) -> dict[RunKey, RunState]:
    """Bring runs to their end, each from wherever it was stopped.

    Args:
        task: What is trained; it is sent to the processes once.
        keys: The runs, in the order in which they start.
        out: The grid's folder, locked by the caller; None keeps nothing.
        jobs: Processes; 1 runs everything in this one.
        threads: Threads that each run computes with.
        on_event: Told in this process of epochs and stages.

    Returns:
        How far each run has come.

    Raises:
        InputError: If a method or network refuses what it is given.
        WorkFailedError: If a process is killed, or a GPU has too little memory.
    """
    if jobs == 1 or len(keys) <= 1:
        with computing_with(threads):
            return {key: _run(task, key, out, on_event) for key in keys}
    done = _head_start(task, keys, out, threads, on_event)
    if left := [key for key in keys if key not in done]:
        done |= _run_in_processes(task, left, out, min(jobs, len(left)), threads, on_event)
    return {key: done[key] for key in keys}


class _TakesLongerError(Exception):
    """The work is worth processes of its own."""


def _head_start(
    task: Task, keys: Sequence[RunKey], out: Path | None, threads: int, on_event: OnEvent
) -> dict[RunKey, RunState]:
    """Work in this process for as long as starting others would take; they begin the run again that was under way."""
    began = time.monotonic()
    done: dict[RunKey, RunState] = {}

    def until_it_pays(event: Event) -> None:
        on_event(event)
        if time.monotonic() - began > WORKER_COST:
            raise _TakesLongerError

    with computing_with(threads), suppress(_TakesLongerError):
        for key in keys:
            done[key] = _run(task, key, out, until_it_pays)
    return done


def _run(task: Task, key: RunKey, out: Path | None, on_event: OnEvent) -> RunState:
    last = 0.0

    def rarely(event: Event) -> None:
        nonlocal last
        if event.finished_stage is not None or time.monotonic() - last > QUIET:
            last = time.monotonic()
            on_event(event)

    with memory_sufficing(key):
        return Run(task, key, out).go_on(rarely)


@contextmanager
def memory_sufficing(key: RunKey) -> Iterator[None]:
    """See to it that a GPU's lack of memory is told in one line.

    Args:
        key: The run that computes meanwhile.

    Yields:
        Nothing.

    Raises:
        WorkFailedError: If the memory does not suffice.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise WorkFailedError(f"{key}: {too_little_memory(error)}") from error


def _run_in_processes(
    task: Task, keys: Sequence[RunKey], out: Path | None, jobs: int, threads: int, on_event: OnEvent
) -> dict[RunKey, RunState]:
    context = worker_context()
    lifeline, ours = context.Pipe(duplex=False)
    with _told(context, on_event) as tell:
        pool = ProcessPoolExecutor(jobs, context, _start_worker, (task, out, threads, tell, lifeline))
        try:
            with _interrupts_wait():
                futures = {pool.submit(_work, key): key for key in keys}
            done = {futures[future]: _result(future) for future in as_completed(futures)}
        finally:
            ours.close()  # the workers end at once, whatever they are doing
            pool.shutdown(wait=True, cancel_futures=True)
    return done


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold interruptions back while processes start: one that is started by half waits for its other half for ever.

    The processes inherit the mask: a Ctrl-C reaches them from the terminal too, and only this process answers it.
    """
    if threading.current_thread() is not threading.main_thread():  # no interruption arrives here
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
class _Tell:
    """The workers' end of the pipe that events come through."""

    pipe: Any
    lock: Any

    def __call__(self, event: Event) -> None:
        with self.lock:
            self.pipe.send(event)


@contextmanager
def _told(context: Any, on_event: OnEvent) -> Iterator[_Tell]:
    """Hand the workers' events to this process's display, until the last of them has closed the pipe."""
    reader, writer = context.Pipe(duplex=False)
    failure: list[Exception] = []

    def listen() -> None:
        with (
            reader,
            suppress(EOFError),
        ):  # closed early, it fails the workers' next word: none waits for a listener that is gone
            while not failure:
                event = reader.recv()
                try:
                    on_event(event)
                except Exception as error:  # a full disk, say
                    failure.append(error)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield _Tell(writer, context.Lock())
    finally:
        writer.close()
        thread.join()
        if failure:
            raise failure[0]


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute with so many threads, and with as many as before again.

    Args:
        threads: How many.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_worker: tuple[Task, Path | None, _Tell] | None = None
"""In a worker: the task, the folder, the way back for events."""


def _start_worker(task: Task, out: Path | None, threads: int, tell: _Tell, lifeline: Connection) -> None:
    global _worker
    _worker = (task, out, tell)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the workers
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    torch.set_num_threads(threads)


def _die_with_parent(lifeline: Connection) -> None:
    """The parent holds the other end and never writes: it can only be closed, by a kill too."""
    multiprocessing.connection.wait([lifeline])
    os._exit(1)


def _work(key: RunKey) -> RunState:
    assert _worker is not None
    task, out, tell = _worker
    return _run(task, key, out, tell)
