"""Carrying a grid of runs out: its output folder, who computes it, what is shown, and going on with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from warmstart.errors import InputError
from warmstart.grids.display import Display
from warmstart.grids.local_processes import OnEvent, computing_with, memory_sufficing, run_grid
from warmstart.grids.ray_cluster import Cluster, ray_cluster
from warmstart.grids.record import check_output, write_config
from warmstart.grids.settings import GridConfig
from warmstart.grids.tracking.registry import make_tracker
from warmstart.processes import Team
from warmstart.runs.results import StageResult, to_csv
from warmstart.runs.run import Event, Run, RunKey, Saved, saved_runs, unfinished
from warmstart.runs.task import Task
from warmstart.storage.atomic import write_text
from warmstart.storage.lock import FolderLock
from warmstart.training.devices import available_cores
from warmstart.training.parallel import launched_processes, launched_team
from warmstart.wording import counted

WRITE_EVERY = 1.0
"""Seconds between two versions of results.csv while a grid runs."""


@dataclass(frozen=True)
class Plan:
    """A grid that is about to be carried out."""

    task: Task
    config: GridConfig
    recorded: dict[str, Any]
    """What config.yaml will hold."""
    lines: Sequence[str]
    """What it is, for the display."""
    session: AbstractContextManager[None] = field(default_factory=nullcontext)
    """Entered in the first process while the runs compute, with the folder locked and known to be this grid's."""


def carry_out(plan: Plan, display: Display) -> dict[RunKey, Saved]:
    """Run a grid, or go on with one.

    Args:
        plan: The grid.
        display: Shows what is done.

    Returns:
        What each run has saved.

    Raises:
        InputError: If the folder is in use or holds another configuration.
        HelpedError: In all but the first of several processes that were started together, when the work is done.
    """
    config, recorded = plan.config, plan.recorded
    _check_processes(config)
    out = Path(config.out)
    team = launched_team(config.resolved_device())
    if team.rank > 0:
        _help(plan.task, team)
    with ExitStack() as stack:
        warnings = team.attempt(partial(_open, out, recorded, stack))  # until all is known to be in order, only looks
        keys = grid_of(recorded)
        threads = int(recorded["threads"])
        done = team.attempt(partial(saved_runs, keys, out))
        left = unfinished(keys, done, plan.task.stages)
        jobs = jobs_for(config, threads, len(left))
        cluster = stack.enter_context(_cluster(config, threads))
        tracker = make_tracker(config.track, out=out, config={**recorded, "stages": plan.task.stages}, done=done)
        write_config(out, recorded)
        display.plan(
            [*plan.lines, _where(config, len(keys), max(jobs, team.size), threads), *warnings],
            runs=len(keys),
            stages=plan.task.stages,
            done=[StageResult(**row) for saved in done.values() for row in saved["rows"]],
        )
        keeper = _Keeper(out, recorded, done)
        keeper.write()

        def on_event(event: Event) -> None:
            keeper.note(event)
            tracker(event)
            display.event(event)

        stack.enter_context(plan.session)
        try:
            if team.size > 1:
                _compute_together(plan.task, team.tell(left), out, team, team.tell(threads), on_event)
            elif cluster is not None:
                cluster.run(plan.task, left, out, on_event)
            else:
                run_grid(plan.task, left, out, jobs=jobs, threads=threads, on_event=on_event)
        finally:
            keeper.write()
            tracker.close()
        return saved_runs(keys, out)


@contextmanager
def _cluster(config: GridConfig, threads: int) -> Iterator[Cluster | None]:
    if config.executor != "ray":
        yield None
        return
    gpus = config.gpus_per_run if config.resolved_device().type == "cuda" else 0.0
    with ray_cluster(config.ray_address, gpus=gpus, threads=threads) as cluster:
        yield cluster


class HelpedError(Exception):
    """This process trained along with the first one, which writes and shows the results."""


def _check_processes(config: GridConfig) -> None:
    """Refuse flags that processes which train each run together would not look at."""
    several = isinstance(config.jobs, int) and config.jobs > 1
    if (count := launched_processes()) > 1 and (config.executor == "ray" or several):
        flag = "--executor ray" if config.executor == "ray" else f"--jobs {config.jobs}"
        raise InputError(f"these {count} processes train each run together, one run after the other: drop {flag}")


def _open(out: Path, recorded: dict[str, Any], stack: ExitStack) -> list[str]:
    stack.enter_context(FolderLock(out))
    return check_output(out, recorded)


def _help(task: Task, team: Team) -> None:
    """What the other processes do, in step with the first one."""
    team.attempt(lambda: None)  # the folder
    team.attempt(lambda: None)  # what it holds
    keys: list[RunKey] = team.tell([])
    _compute_together(task, keys, None, team, team.tell(0), lambda event: None)
    raise HelpedError("this process has helped the first one, which has the results")


def _compute_together(
    task: Task, keys: Sequence[RunKey], out: Path | None, team: Team, threads: int, on_event: OnEvent
) -> None:
    """Run after run, each over all processes."""
    with computing_with(threads):
        for key in keys:
            with memory_sufficing(key):
                Run(task, key, out, team).go_on(on_event)


def _where(config: GridConfig, runs: int, jobs: int, threads: int) -> str:
    processes = "on Ray" if config.executor == "ray" else f"{jobs} processes" if jobs > 1 else "1 process"
    return (
        f"{counted(runs, 'run')} on {config.resolved_device()}, {processes} of {counted(threads, 'thread')}, "
        f"into {config.out}"
    )


def grid_of(recorded: dict[str, Any]) -> list[RunKey]:
    """The runs of a grid.

    Args:
        recorded: What config.yaml holds.

    Returns:
        Seed by seed, each with all optimizers and methods: a grid that is stopped has whole seeds.
    """
    return [
        RunKey(method, seed, optimizer)
        for seed in seeds_of(recorded)
        for optimizer in optimizers_of(recorded)
        for method in recorded["methods"]
    ]


def optimizers_of(recorded: dict[str, Any]) -> Sequence[str]:
    """The optimizers of a grid.

    Args:
        recorded: What config.yaml holds.

    Returns:
        Their names; one without a name where training makes its own.
    """
    names: Sequence[str] = recorded.get("optimizers") or [recorded.get("optimizer", "")]
    return names


def seeds_of(recorded: dict[str, Any]) -> Sequence[int]:
    """The seeds of a grid.

    Args:
        recorded: What config.yaml holds; a count N means 0 to N-1.

    Returns:
        The seeds, in order.
    """
    seeds: int | list[int] = recorded["seeds"]
    return range(seeds) if isinstance(seeds, int) else seeds


def jobs_for(config: GridConfig, threads: int, runs: int) -> int:
    """How many processes compute at a time.

    Args:
        config: The settings.
        threads: Threads a run.
        runs: Runs that are left.

    Returns:
        As many as were asked for; by itself as many as the cores feed, and on an accelerator one, which fills it.
        One where several processes train each run.
    """
    if launched_processes() > 1:
        return 1
    if isinstance(config.jobs, int):
        return config.jobs
    return max(1, min(runs, available_cores() // threads)) if config.resolved_device().type == "cpu" else 1


class _Keeper:
    """Keeps results.csv up to date while a grid runs; the runs' checkpoints remain the truth."""

    def __init__(self, out: Path, recorded: dict[str, Any], done: dict[RunKey, Saved]) -> None:
        self._file = out / "results.csv"
        self._order = {key: i for i, key in enumerate(_in_order_of_method(recorded))}
        self._rows = {(key, row["stage"]): row for key, saved in done.items() for row in saved["rows"]}
        self._written = 0.0
        self._lock = threading.Lock()

    def note(self, event: Event) -> None:
        if event.finished_stage is None:
            return
        with self._lock:
            self._rows[event.key, event.stage] = vars(event.finished_stage)
        if time.monotonic() - self._written > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        with self._lock:
            ordered = sorted(self._rows, key=lambda place: (self._order[place[0]], place[1]))
            write_text(self._file, to_csv(StageResult(**self._rows[place]) for place in ordered))
            self._written = time.monotonic()


def _in_order_of_method(recorded: dict[str, Any]) -> list[RunKey]:
    return sorted(
        grid_of(recorded),
        key=lambda key: (optimizers_of(recorded).index(key.optimizer), recorded["methods"].index(key.method), key.seed),
    )
