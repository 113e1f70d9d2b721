"""What is shown while a grid runs: a bar for the grid, a line for each active run, the time left."""

from __future__ import annotations

import math
import threading
import time
import warnings as python_warnings
from collections.abc import Sequence
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from warmstart.grids.time_left import TimeLeft
from warmstart.launch import is_first_process
from warmstart.reporting.terminal import Terminal
from warmstart.runs.key import RunKey
from warmstart.runs.metric import ACCURACY, Metric
from warmstart.runs.run import Event
from warmstart.runs.stage_result import StageResult
from warmstart.training.loop import Progress

QUIET_SECONDS = 25.0
"""Without a terminal, a line is written when none was for so long."""


class Display:
    """Live on a terminal; elsewhere a plain line for each finished run, and now and then. Everything goes to stderr."""

    def __init__(self, *, quiet: bool = False, metric: Metric = ACCURACY) -> None:
        """Show nothing yet; with ``quiet`` nothing at all, and warnings become Python's."""
        self._metric, self._quiet = metric, quiet
        self._console = Terminal(stderr=True, quiet=quiet or not is_first_process())
        self._lock = threading.Lock()
        self._running: dict[RunKey, Event] = {}
        self._began = time.monotonic()
        self._stages = 0
        self._runs = 0
        self._runs_done = 0
        self._work = 0
        """All stages of the grid, each counted by its number, since a stage trains on all data so far."""
        self._work_done = 0
        self._time_left = TimeLeft((), 0)
        self._last_line = self._began
        self._ended = threading.Event()
        self._silence: threading.Thread | None = None
        self._live = Live(console=self._console, get_renderable=self._view, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        """Return the display; `plan` starts it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the live part from the screen."""
        self._ended.set()
        if self._live.is_started:
            self._live.stop()

    def loading(self, done: int, total: int) -> None:
        """Show how many images of how many have been read; on a terminal only."""
        if self._console.is_terminal:
            self._console.print(f"reading images: {done:,} of {total:,}", end="\n" if done == total else "\r")

    def plan(
        self,
        lines: Sequence[str],
        warnings: Sequence[str] = (),
        *,
        keys: Sequence[RunKey],
        stages: int,
        done: Sequence[StageResult],
    ) -> None:
        """Print a plan and its warnings, count the rows of earlier starts, and start the clock, at each plan anew."""
        for line in lines:
            self._console.print(line)
        for warning in warnings:
            if self._quiet:
                python_warnings.warn(warning, stacklevel=2)
            else:
                self._console.print(f"warning: {warning}", style="yellow")
        self._stages = stages
        self._runs = self._runs_done = self._work = self._work_done = 0
        self._time_left = TimeLeft((), stages)
        self._expect(keys, done)
        if done:
            self._console.print(f"going on: {self._runs_done} of {self._runs} runs are done")
        self._began = self._last_line = time.monotonic()
        if self._console.quiet:
            return
        if self._console.is_terminal:
            self._live.start()
        elif self._silence is None:
            self._silence = threading.Thread(target=self._break_silence, daemon=True)
            self._silence.start()

    def more(self, line: str, keys: Sequence[RunKey], done: Sequence[StageResult]) -> None:
        """Print a line, and add the runs that it announces, with their rows of earlier starts."""
        with self._lock:
            self._line(line)
            self._expect(keys, done)

    def _expect(self, keys: Sequence[RunKey], done: Sequence[StageResult]) -> None:
        self._runs += len(keys)
        self._work += len(keys) * self._stages * (self._stages + 1) // 2
        self._time_left.add(keys)
        for row in done:
            self._count(row, now=False)

    def _break_silence(self) -> None:
        """Without a terminal: say now and then that work goes on."""
        while not self._ended.wait(max(0.0, self._last_line + QUIET_SECONDS - time.monotonic())):
            with self._lock:
                if time.monotonic() - self._last_line >= QUIET_SECONDS:
                    running = [f"{_name(key)} stage {e.stage}, {_training(e.progress)}" for key, e in self._sorted()]
                    self._line("; ".join([f"{self._runs_done}/{self._runs} runs, {self._left()} left", *running[:2]]))

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, soft_wrap=True)

    def _sorted(self) -> list[tuple[RunKey, Event]]:
        return sorted(self._running.items(), key=lambda item: (item[0].seed, item[0].method))

    def event(self, event: Event) -> None:
        """Show an epoch, or count a finished stage."""
        with self._lock:
            self._running[event.key] = event
            row = event.finished_stage
            if row is None:
                return
            if not self._count(row):
                return
            self._running.pop(event.key, None)
            if not self._console.is_terminal:
                how = "" if row.status == "done" else f" ({row.status} in stage {row.stage})"
                self._line(
                    f"[{self._runs_done}/{self._runs}] {_name(event.key)}: "
                    f"{self._metric.text(row.test_accuracy)}, {row.steps} steps{how}; {self._left()} left"
                )

    def _count(self, row: StageResult, *, now: bool = True) -> bool:
        """Add a finished stage to the bar; True if its run is over."""
        self._time_left.count(row, now=now)
        self._work_done += row.stage
        if row.ends_run:
            self._work_done += sum(range(row.stage + 1, self._stages + 1))
        over = row.stage == self._stages or row.ends_run
        self._runs_done += over
        return over

    def _left(self) -> str:
        under_way = {k: 0.0 if e.finished_stage else e.progress.seconds for k, e in self._running.items()}
        seconds = self._time_left.seconds(time.monotonic() - self._began, under_way)
        if seconds is None:
            return "?"
        hours, minutes = divmod(round(seconds) // 60, 60)
        return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {round(seconds) % 60:02} s"

    def _view(self) -> Group:
        with self._lock:
            bar = Table.grid(padding=(0, 2))
            bar.add_row(
                ProgressBar(total=self._work or 1, completed=self._work_done, width=30),
                f"{self._runs_done}/{self._runs} runs",
                f"{self._left()} left",
            )
            lines = [
                Text(
                    f"  {_name(key):<36.36} stage {event.stage}/{self._stages}  " + _training(event.progress),
                    style="dim",
                    overflow="ellipsis",
                    no_wrap=True,
                )
                for key, event in self._sorted()
            ]
            return Group(bar, *lines)


def _training(progress: Progress) -> str:
    """How far training is, in steps only where a user's own function gives no epochs and accuracy."""
    if not math.isfinite(progress.accuracy):
        return f"{progress.steps} steps"
    stuck = f", no rise since epoch {progress.span_begin}" if progress.is_slowing else ""
    return f"epoch {progress.epochs:<4} train {progress.accuracy:.1%}{stuck}"


def _name(key: RunKey) -> str:
    return f"{key.method} seed {key.seed}" + f", {key.optimizer}" * bool(key.optimizer)
