"""What a stage does to single examples: accuracy on old and new ones, churn; beside it what a run costs in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from warmstart.evidence.table import mean_std
from warmstart.reporting import html
from warmstart.reporting.html import Html
from warmstart.runs.results import Results
from warmstart.runs.stage_result import StageResult

_CAPTION = (
    "Accuracies on training examples (at most 2000) after the last stage: those of earlier stages, and those that it "
    "brought. Newly wrong (churn) and newly right: shares of the test examples that changed from before a stage to "
    "after it, mean over stages. Seconds: a whole run's training, and what the method itself took of it besides."
)


def old_new_and_churn(results: Results) -> list[Html]:
    """A table of complete runs, mean (std) over seeds; nothing where only a metric is known."""
    if not any(math.isfinite(row.newly_wrong) or math.isfinite(row.new_accuracy) for row in results.rows):
        return []
    head = ["method", "old, %", "new, %", "newly wrong, %", "newly right, %", "training, s", "method, s"]
    rows = [_cells(results, method) for method in results.methods]
    if any(math.isfinite(row.train_joules) for row in results.rows):
        head.append("training, kJ")
        rows = [(*row, _energy(results, row[0])) for row in rows]
    return [html.table(head, rows, caption=_CAPTION)]


def _energy(results: Results, method: str) -> str:
    runs = [sum(row.train_joules for row in run) / 1000 for run in results.finished(method).values()]
    return mean_std([run for run in runs if math.isfinite(run)], ".3g")


def _cells(results: Results, method: str) -> tuple[str, ...]:
    runs = list(results.finished(method).values())
    return (
        method,
        _percent([run[-1].old_accuracy for run in runs]),
        _percent([run[-1].new_accuracy for run in runs]),
        _percent([_mean(run, lambda row: row.newly_wrong) for run in runs]),
        _percent([_mean(run, lambda row: row.newly_right) for run in runs]),
        mean_std([sum(row.train_seconds for row in run) for run in runs], ".1f"),
        mean_std([sum(row.method_seconds for row in run) for run in runs], ".1f"),
    )


def _mean(run: Sequence[StageResult], value: Callable[[StageResult], float]) -> float:
    known = [value(row) for row in run if math.isfinite(value(row))]
    return fmean(known) if known else math.nan


def _percent(values: Sequence[float]) -> str:
    return mean_std([100 * value for value in values if math.isfinite(value)], ".1f")
