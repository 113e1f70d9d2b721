"""The history of a state: one line a stage, in words and numbers, for the terminal and the report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from warmstart.retraining.index import Index, StageRow
from warmstart.retraining.state import COLD
from warmstart.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

HEADS = ("stage", "ended", "result", "new images", "all images", "steps", "accuracy %", "gain points", "churn %")
SHOWN = 10
"""Of what was left out, on the terminal; the report shows all."""
_BY_HAND = ("rolled back", "fell back", "withdrawn", "erased", "readmitted")
"""Events that explain what the stages do not."""


@dataclass(frozen=True)
class Line:
    """One stage."""

    row: StageRow
    metrics: dict[str, float | None]
    steps: int
    """Of all trainings that the stage needed, without one from scratch beside."""
    in_service: bool

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of `HEADS`."""
        row = self.row
        return (
            f"{row.number}{'*' if self.in_service else ''}",
            "" if row.ended is None else _when(row.ended),
            row.state,
            f"{row.new:,}",
            f"{row.seen:,}",
            f"{self.steps:,}" if self.steps else "–",
            _percent(self.metrics.get("accuracy")),
            _percent(self.metrics.get("difference"), "+"),
            _percent(self.metrics.get("churn")),
        )


def history(index: Index) -> list[Line]:
    """All stages, oldest first."""
    current = index.current
    found = []
    for row in index.stages():
        steps = sum(run["steps"] for attempt, run in index.runs(row.number).items() if attempt != COLD)
        found.append(Line(row, index.metrics(row.number), steps, row.number == current))
    return found


def table(lines: list[Line]) -> Table:
    """The table for a terminal of 80 columns."""
    from warmstart.evidence.table import terminal_table

    shown = terminal_table(HEADS)
    for line in lines:
        shown.add_row(*line.cells())
    return shown


def remarks(index: Index, lines: list[Line]) -> list[str]:
    """What a table does not say: reasons, what is in service, what was done by hand, what is left out now."""
    found = [
        f"stage {line.row.number} was rejected: {line.row.reason}" for line in lines if line.row.state == "rejected"
    ]
    for line in lines:
        if (cold := line.metrics.get("cold_accuracy")) is not None:
            behind = "has fallen behind" if line.metrics.get("behind_cold") else "has not fallen behind"
            found.append(f"stage {line.row.number}: trained from scratch {cold:.1%}; the warm line {behind}")
    if (current := index.current) is not None and (best := index.bar(current)) != current:
        found.append(f"stage {best} is the best so far, which candidates are held against beside stage {current}")
    found += [f"stage {line.row.number} is still to be trained" for line in lines if line.row.state == "training"]
    by_hand = [f"on {_when(at)}: {text}" for _, kind, text, at in index.events() if kind in _BY_HAND]
    found += by_hand[-SHOWN:]
    left_out = index.left_out()
    found += [f"left out since stage {stage}: {path}: {reason}" for stage, path, reason in left_out[-SHOWN:]]
    if len(left_out) > SHOWN:
        found.append(f"and {counted(len(left_out) - SHOWN, 'other')} left out (--report lists all)")
    return found


def _when(seconds: float) -> str:
    """Seconds since 1970 in local time; of another year the day."""
    at = datetime.fromtimestamp(seconds)
    return f"{at:%m-%d %H:%M}" if at.year == datetime.now().year else f"{at:%Y-%m-%d}"


def _percent(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{100 * value:{sign}z.1f}"
