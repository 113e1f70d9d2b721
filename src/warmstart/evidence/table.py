"""The paper's table: last and mean metric, last and mean steps, each ``mean (std)`` over runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from rich import box
from rich.table import Table

from warmstart.reporting import markdown as md
from warmstart.runs.metric import ACCURACY, Metric
from warmstart.runs.results import Results


@dataclass(frozen=True)
class Row:
    """One method's runs: in each of the four columns one number a run, accuracies in [0, 1]."""

    method: str
    last_metric: Sequence[float]
    last_steps: Sequence[float]
    mean_metric: Sequence[float]
    mean_steps: Sequence[float]

    @classmethod
    def of(cls, results: Results, method: str) -> Self:
        """The row of one method, from its complete runs only."""
        runs = list(results.finished(method).values())
        return cls(
            method,
            last_metric=[run[-1].test_accuracy for run in runs],
            last_steps=[run[-1].steps for run in runs],
            mean_metric=[statistics.fmean(row.test_accuracy for row in run) for run in runs],
            mean_steps=[statistics.fmean(row.steps for row in run) for run in runs],
        )


def mean_std(values: Sequence[float], form: str) -> str:
    """``"84.08 (0.52)"``: mean and sample standard deviation; the mean alone for one value, a dash for none."""
    if not values:
        return "–"
    mean = format(statistics.fmean(values), form)
    return f"{mean} ({format(statistics.stdev(values), form.lstrip('+'))})" if len(values) > 1 else mean


def columns(metric: Metric) -> tuple[str, ...]:
    """The five column heads, that of the method first."""
    shown = f"{metric.name}{metric.unit}"
    return "method", f"last {shown}", "last steps", f"mean {shown}", "mean steps"


def cells(row: Row, metric: Metric) -> tuple[str, ...]:
    """A row as text, in the order of `columns`."""
    form = metric.form
    last, mean = ([metric.scale * value for value in values] for values in (row.last_metric, row.mean_metric))
    return (
        row.method,
        mean_std(last, form),
        mean_std(_counted(row.last_steps), ".0f"),
        mean_std(mean, form),
        mean_std(_counted(row.mean_steps), ".0f"),
    )


def markdown(rows: Sequence[Row], metric: Metric = ACCURACY) -> str:
    """The table in Markdown, aligned; the last line ends with a line break."""
    return md.table(columns(metric), [cells(row, metric) for row in rows])


def terminal(rows: Sequence[Row], metric: Metric = ACCURACY) -> Table:
    """The table for a terminal, at most 80 characters wide; long methods show their settings on lines of their own."""
    table = terminal_table(columns(metric))
    for row in rows:
        method, *numbers = cells(row, metric)
        name = method.replace("[", "\n[", 1).replace(",", ",\n ") if len(method) > 24 else method
        table.add_row(name, *numbers)
    return table


def terminal_table(heads: Sequence[str]) -> Table:
    """An empty table for a terminal: a column of names, then columns of numbers with heads of two lines."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(heads[0], overflow="fold")
    for head in heads[1:]:
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    return table


def _counted(steps: Sequence[float]) -> Sequence[float]:
    # A user's own training function need not count steps.
    return steps if all(math.isfinite(value) and value > 0 for value in steps) else ()
