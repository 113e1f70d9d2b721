"""Carrying a grid of runs out, or resuming it: its output folder, where it is computed, what is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmstart.errors import HelpedError, InputError, require
from warmstart.grids.display import Display
from warmstart.grids.local_processes import OnEvent, run_grid
from warmstart.grids.ray_cluster import Cluster, ray_cluster
from warmstart.grids.record import Record, check_output, write_record
from warmstart.grids.results_file import write_results
from warmstart.grids.settings import GridSettings
from warmstart.grids.tracking.registry import make_tracker
from warmstart.interruption import begin_work
from warmstart.launch import available_cores, launched_processes
from warmstart.processes import Team
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.key import RunKey
from warmstart.runs.rehearsal import rehearse
from warmstart.runs.run import Event, Run
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState
from warmstart.runs.task import Task
from warmstart.storage.lock import FolderLock
from warmstart.training.devices import computing_with, memory_sufficing
from warmstart.training.shares import end_together, launched_team
from warmstart.wording import counted

WRITE_EVERY = 1.0
"""Seconds between two versions of results.csv while a grid runs."""


@dataclass(frozen=True)
class Wanted:
    """Which of a grid's runs are wanted, given what is done."""

    runs: Sequence[RunKey]
    """Those that are done included."""
    line: str = ""
    """Why it is these."""


@dataclass(frozen=True)
class Plan:
    """A grid of runs, ready to be carried out."""

    task: Task
    record: Record[GridSettings]
    out: Path | None
    """The output folder; None keeps everything in memory."""
    lines: Sequence[str]
    """Shown before the runs start."""
    warnings: Sequence[str] = ()
    session: AbstractContextManager[None] = field(default_factory=nullcontext)
    """Entered in the first process while the runs compute, after the folder is locked and checked."""
    wanted: Callable[[Mapping[RunKey, RunState]], Wanted] | None = None
    """Asked in the first process at the start, with what is done, and again whenever all runs that it wanted are done,
    until it wants no more; None: all runs of the grid are wanted."""
    followed: bool = False
    """Whether the processes that were launched together carry out another plan after it."""

    @property
    def threads(self) -> int:
        """Threads of a run."""
        return int(self.record.settings.threads)


def carry_out(plan: Plan, display: Display) -> dict[RunKey, RunState]:
    """Run a grid, or resume one; each run ends complete or diverged.

    Returns:
        The last state of each run.

    Raises:
        InputError: If the folder is in use or holds another configuration.
        HelpedError: After the work, in all but the first of several processes that were launched together.
    """
    _check_conflicts(plan)
    begin_work()
    team = launched_team(plan.record.settings.resolved_device())
    with ExitStack() as stack:
        work = _Work(plan, display, stack, team)
        left = team.on_first(work.prepare)
        on_event = work.on_event if team.rank == 0 else _ignore
        while left:
            if team.size > 1:
                work.done |= _compute_together(plan, left, work.folder, team, on_event)
            else:
                work.done |= work.compute(left)
            left = team.on_first(work.go_on)
        if not plan.followed:
            end_together(team)
        if team.rank > 0:
            raise HelpedError("this process trained along with process 0, which has the results")
        return work.done


class _Work:
    """The first process's work besides training: prepares the grid, writes results.csv, passes events on."""

    def __init__(self, plan: Plan, display: Display, stack: ExitStack, team: Team) -> None:
        self.plan, self.display, self.stack, self.team = plan, display, stack, team
        self.folder: GridFolder | None = None
        self.done: dict[RunKey, RunState] = {}
        """The states of all runs of which there are any."""
        self._expected: set[RunKey] = set()
        self._jobs = 1
        self._cluster: Cluster | None = None
        self._listeners: Sequence[OnEvent] = ()

    def prepare(self) -> list[RunKey]:
        """Lock the folder, check it, then open everything; returns the unfinished runs of those that are wanted."""
        plan, settings, out, stack = self.plan, self.plan.record.settings, self.plan.out, self.stack
        warnings = list(plan.warnings)
        keys, stages = settings.runs(), plan.task.stages
        if out is not None:
            claim = stack.enter_context(FolderLock(out))
            warnings += check_output(out, plan.record)
            self.folder = plan.record.grid_folder(out, claim)
            self.done = self.folder.states(keys)
        wanted = self._wanted()
        left = unfinished(wanted.runs, self.done, stages)
        rehearse(plan.task, left)
        self._jobs = jobs_for(settings, plan.threads, len(left))
        self._cluster = stack.enter_context(_cluster(settings, plan.threads))
        tracker = make_tracker(settings.track, out=out, record=plan.record, stages=stages, done=self.done)
        if out is not None:
            write_record(out, plan.record)
        how = _how_computed(plan, len(wanted.runs), max(self._jobs, self.team.size))
        lines = [*plan.lines, how, *filter(None, [wanted.line])]
        self.display.plan(lines, warnings, keys=wanted.runs, stages=stages, done=self._rows_of(wanted.runs))
        self._expected.update(wanted.runs)
        results_file = _ResultsFile(self.folder, settings, self.done)
        stack.callback(tracker.close)
        stack.callback(results_file.write)
        results_file.write()
        stack.enter_context(plan.session)
        self._listeners = (results_file.add, tracker, self.display.event)
        return left

    def _wanted(self) -> Wanted:
        plan = self.plan
        return Wanted(plan.record.settings.runs()) if plan.wanted is None else plan.wanted(self.done)

    def _rows_of(self, keys: Sequence[RunKey]) -> list[StageResult]:
        return [row for key in keys if key in self.done for row in self.done[key].rows]

    def go_on(self) -> list[RunKey]:
        """The unfinished runs that are wanted after those that are done."""
        wanted = self._wanted()
        added = [key for key in wanted.runs if key not in self._expected]
        if wanted.line:
            self.display.more(wanted.line, added, self._rows_of(added))
        self._expected.update(added)
        left = unfinished(wanted.runs, self.done, self.plan.task.stages)
        self._jobs = jobs_for(self.plan.record.settings, self.plan.threads, len(left))
        return left

    def on_event(self, event: Event) -> None:
        """Pass an event on to results.csv, the trackers and the display."""
        for listener in self._listeners:
            listener(event)

    def compute(self, left: Sequence[RunKey]) -> Mapping[RunKey, RunState]:
        """Compute the unfinished runs, here or on Ray."""
        task, folder, threads = self.plan.task, self.folder, self.plan.threads
        if self._cluster is not None:
            assert folder is not None  # _check_conflicts
            return self._cluster.run(task, left, folder, self.on_event)
        return run_grid(task, left, folder, jobs=self._jobs, threads=threads, on_event=self.on_event)


def _ignore(event: Event) -> None:
    """Ignore an event: only the first process records them."""


def _compute_together(
    plan: Plan, keys: Sequence[RunKey], folder: GridFolder | None, team: Team, on_event: OnEvent
) -> Mapping[RunKey, RunState]:
    """One run after the other, each trained by all processes together; the first alone has the folder."""
    done = {}
    with computing_with(team.broadcast(plan.threads)):
        for key in keys:
            with memory_sufficing(key):
                done[key] = Run(plan.task, key, folder, team).go_on(on_event)
    return done


@contextmanager
def _cluster(settings: GridSettings, threads: int) -> Iterator[Cluster | None]:
    if settings.executor != "ray":
        yield None
        return
    gpus = settings.gpus_per_run if settings.resolved_device().type == "cuda" else 0.0
    with ray_cluster(settings.ray_address, gpus=gpus, threads=threads) as cluster:
        yield cluster


def _check_conflicts(plan: Plan) -> None:
    """Refuse settings that contradict each other or would have no effect."""
    settings = plan.record.settings
    several = isinstance(settings.jobs, int) and settings.jobs > 1
    if (count := launched_processes()) > 1 and (settings.executor == "ray" or several):
        flag = "--executor ray" if settings.executor == "ray" else f"--jobs {settings.jobs}"
        raise InputError(f"these {count} processes train each run together, one run after the other: drop {flag}")
    kept = plan.out is not None or (settings.executor == "local" and not settings.track)
    require(kept, "trackers and Ray need an output folder: give out")


def _how_computed(plan: Plan, runs: int, jobs: int) -> str:
    settings = plan.record.settings
    processes = "on Ray" if settings.executor == "ray" else f"{jobs} processes" if jobs > 1 else "1 process"
    kept = "kept in memory" if plan.out is None else f"into {plan.out}"
    device = settings.resolved_device()
    return f"{counted(runs, 'run')} on {device}, {processes} of {counted(plan.threads, 'thread')}, {kept}"


def unfinished(keys: Sequence[RunKey], done: Mapping[RunKey, RunState], stages: int) -> list[RunKey]:
    """The runs that have neither reached the last stage nor diverged."""
    return [key for key in keys if key not in done or not done[key].is_over(stages)]


def jobs_for(settings: GridSettings, threads: int, runs: int) -> int:
    """How many processes compute at a time: the setting, or with ``auto`` what the cores allow; 1 on a GPU."""
    if launched_processes() > 1:  # they train each run together
        return 1
    if isinstance(settings.jobs, int):
        return settings.jobs
    return max(1, min(runs, available_cores() // threads)) if settings.resolved_device().type == "cpu" else 1


class _ResultsFile:
    """results.csv, kept up to date while a grid runs; the runs' checkpoints are what a restart reads."""

    def __init__(self, folder: GridFolder | None, settings: GridSettings, done: Mapping[RunKey, RunState]) -> None:
        self._folder = folder
        by_method = sorted(settings.runs(), key=_order_in_file(settings))
        self._order = {key: i for i, key in enumerate(by_method)}
        self._rows = {(key, row.stage): row for key, state in done.items() for row in state.rows}
        self._written = 0.0
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """Add the row of a finished stage."""
        if event.finished_stage is None:
            return
        with self._lock:
            self._rows[event.key, event.stage] = event.finished_stage
        if time.monotonic() - self._written > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write all rows, in order of optimizer, method, seed and stage."""
        if self._folder is None:
            return
        self._folder.require_claim()
        with self._lock:
            ordered = sorted(self._rows, key=lambda place: (self._order[place[0]], place[1]))
            rows: list[StageResult] = [self._rows[place] for place in ordered]
            write_results(self._folder.path / "results.csv", rows, check=self._folder.require_claim)
            self._written = time.monotonic()


def _order_in_file(settings: GridSettings) -> Any:
    optimizers, methods = list(settings.optimizer_names), list(settings.arms)
    return lambda key: (optimizers.index(key.optimizer), methods.index(key.method), key.seed)
