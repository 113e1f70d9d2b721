"""A comparison from settings to report: the grid of methods and seeds, its output folder, and going on with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from warmstart.errors import InputError
from warmstart.experiments.config import (
    CompareConfig,
    available_cores,
    read_recorded,
    record,
    settle_output,
    with_recorded_threads,
)
from warmstart.experiments.display import Display
from warmstart.experiments.grid import run_grid
from warmstart.experiments.image_task import ImageTask
from warmstart.experiments.report import write_report
from warmstart.experiments.results import Results, StageResult, to_csv
from warmstart.experiments.run import Event, RunKey, read_results, saved_runs, unfinished
from warmstart.experiments.verdict import Verdict
from warmstart.storage.atomic import write_text
from warmstart.storage.lock import FolderLock
from warmstart.streams import ImageData, load

WRITE_EVERY = 1.0
"""Seconds between two versions of results.csv while a grid runs."""


def run_comparison(config: CompareConfig, display: Display, images: ImageData | None = None) -> tuple[Results, Verdict]:
    """Run a comparison, or go on with one, and write its report.

    Args:
        config: The settings.
        display: Shows what is done.
        images: The data, such as ``from_dataset`` makes of a torch ``Dataset``; loaded as ``config.data`` says if
            not given.

    Returns:
        All results and the verdict.

    Raises:
        InputError: If the input is wrong, or the folder is in use or holds another configuration.
    """
    out = Path(config.out)
    config = with_recorded_threads(config, out)
    images = images or load(
        config.data,
        image_size=config.image_size,
        image_column=config.image_column,
        label_column=config.label_column,
        progress=display.loading,
    )
    task = ImageTask(config, images)
    task.check()
    with FolderLock(out):
        recorded = record(config, images.fingerprint())
        warnings = settle_output(out, recorded)
        keys = grid_of(recorded)
        threads = int(recorded["threads"])
        done = saved_runs(keys, out)
        left = unfinished(keys, done, config.stages)
        jobs = _jobs(config, threads, len(left))
        lines = [*_description(task, jobs, threads), *warnings]
        display.plan(lines, runs=len(keys), stages=config.stages, done=read_results(recorded, done))
        keeper = _Keeper(out, recorded, done)
        keeper.write()
        try:
            run_grid(task, left, out, jobs=jobs, threads=threads, on_event=keeper.told(display.event))
        finally:
            keeper.write()
        return report(out, recorded, config.margin)


def _description(task: ImageTask, jobs: int, threads: int) -> list[str]:
    config, images = task.config, task.images
    processes = f"{jobs} processes" if jobs > 1 else "1 process"
    return [
        f"{images.name}: {config.stages} stages of {config.stage_size}, {len(images.test_labels):,} test images, "
        f"{images.num_classes} classes; {config.model}, {config.optimizer}",
        f"{len(config.methods)} methods x {config.seeds} seeds on {config.resolved_device()}, {processes} of "
        f"{threads} thread{'s' * (threads > 1)}, into {config.out}",
    ]


def report_again(out: Path, margin: float | None = None) -> tuple[Results, Verdict]:
    """Write table and report of a comparison again, complete or not.

    Args:
        out: Its folder.
        margin: The loss in accuracy that is acceptable; None takes the comparison's own.

    Returns:
        The results and the verdict.

    Raises:
        InputError: If the folder holds no comparison.
    """
    recorded = read_recorded(out)
    return report(out, recorded, recorded.get("margin", 0.0) if margin is None else margin)


def grid_of(recorded: dict[str, Any]) -> list[RunKey]:
    """The runs of a comparison.

    Args:
        recorded: What config.yaml holds.

    Returns:
        Seed by seed, each with all methods.
    """
    return [RunKey(method, seed) for seed in seeds_of(recorded) for method in recorded["methods"]]


def seeds_of(recorded: dict[str, Any]) -> Sequence[int]:
    """The seeds of a comparison.

    Args:
        recorded: What config.yaml holds; a count N means 0 to N-1.

    Returns:
        The seeds, in order.
    """
    seeds: int | list[int] = recorded["seeds"]
    return range(seeds) if isinstance(seeds, int) else seeds


def report(out: Path, recorded: dict[str, Any], margin: float) -> tuple[Results, Verdict]:
    """Read what has been measured and write table and report.

    Args:
        out: The comparison's folder.
        recorded: What config.yaml holds.
        margin: The loss that is acceptable, in the metric's unit.

    Returns:
        The results and the verdict.

    Raises:
        InputError: If no stage is done yet.
    """
    results = read_results(recorded, saved_runs(grid_of(recorded), out))
    if not results.rows:
        raise InputError(f"{out} holds no finished stage yet; start warmstart compare --out {out} again")
    return results, write_report(results, out, margin=margin)


def _jobs(config: CompareConfig, threads: int, runs: int) -> int:
    """Processes: as many as the cores feed with their threads; on an accelerator one, which fills it."""
    if isinstance(config.jobs, int):
        return config.jobs
    return max(1, min(runs, available_cores() // threads)) if config.resolved_device().type == "cpu" else 1


class _Keeper:
    """Keeps results.csv up to date while a grid runs; the runs' checkpoints remain the truth."""

    def __init__(self, out: Path, recorded: dict[str, Any], done: dict[RunKey, dict[str, Any]]) -> None:
        self._file = out / "results.csv"
        self._order = {key: i for i, key in enumerate(_in_order_of_method(recorded))}
        self._rows = {(key, row["stage"]): row for key, saved in done.items() for row in saved["rows"]}
        self._written = 0.0
        self._lock = threading.Lock()

    def told(self, on_event: Callable[[Event], None]) -> Callable[[Event], None]:
        def keep(event: Event) -> None:
            if event.finished_stage is not None:
                with self._lock:
                    self._rows[event.key, event.stage] = vars(event.finished_stage)
                if time.monotonic() - self._written > WRITE_EVERY:
                    self.write()
            on_event(event)

        return keep

    def write(self) -> None:
        with self._lock:
            ordered = sorted(self._rows, key=lambda place: (self._order[place[0]], place[1]))
            write_text(self._file, to_csv(StageResult(**self._rows[place]) for place in ordered))
            self._written = time.monotonic()


def _in_order_of_method(recorded: dict[str, Any]) -> list[RunKey]:
    return [RunKey(method, seed) for method in recorded["methods"] for seed in seeds_of(recorded)]
