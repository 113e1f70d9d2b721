"""The paper's table: last and mean metric, last and mean steps, each ``mean (std)`` over runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from warmstart.runs.metric import ACCURACY, Metric


@dataclass(frozen=True)
class Row:
    """One method's runs: one number a run in each of the four columns."""

    method: str
    last_metric: Sequence[float]
    last_steps: Sequence[float]
    mean_metric: Sequence[float]
    mean_steps: Sequence[float]


def mean_std(values: Sequence[float], form: str) -> str:
    """Write values as ``mean (std)``, with the sample standard deviation.

    Args:
        values: One number a run.
        form: How to format a number, such as ``".2f"``.

    Returns:
        ``"84.08 (0.52)"``; the mean alone for one run, a dash for none.
    """
    if not values:
        return "–"
    mean = format(statistics.fmean(values), form)
    return f"{mean} ({format(statistics.stdev(values), form.lstrip('+'))})" if len(values) > 1 else mean


def columns(metric: Metric) -> tuple[str, ...]:
    """The table's heads.

    Args:
        metric: What is measured.

    Returns:
        Five heads, that of the method first.
    """
    shown = f"{metric.name}{metric.unit}"
    return "method", f"last {shown}", "last steps", f"mean {shown}", "mean steps"


def cells(row: Row, metric: Metric) -> tuple[str, ...]:
    """One row of the table as text.

    Args:
        row: The method's runs, accuracies in [0, 1].
        metric: What is measured.

    Returns:
        Five cells, in the order of `columns`.
    """
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
    """The table in Markdown.

    Args:
        rows: One a method, in the order to be shown.
        metric: What is measured.

    Returns:
        Aligned lines, the last one ended.
    """
    lines = [columns(metric), *([_escaped(cell) for cell in cells(row, metric)] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(5)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (aligned[0], rule, *aligned[1:]))


def terminal(rows: Sequence[Row], metric: Metric = ACCURACY) -> Table:
    """The table for a terminal, at most 80 characters wide.

    Args:
        rows: One a method, in the order to be shown.
        metric: What is measured.

    Returns:
        A table that rich prints; a method's settings go on lines of their own where its name is long.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    heads = columns(metric)
    table.add_column(heads[0], overflow="fold")
    for head in heads[1:]:
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in rows:
        method, *numbers = cells(row, metric)
        name = method.replace("[", "\n[", 1).replace(",", ",\n ") if len(method) > 24 else method
        # Text, not markup: methods carry their settings in [brackets].
        table.add_row(Text(name), *numbers)
    return table


def _counted(steps: Sequence[float]) -> Sequence[float]:
    # A user's own training function need not count steps.
    return steps if all(math.isfinite(value) and value > 0 for value in steps) else ()


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
