"""What `--dry-run` shows."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from warmstart.grids.estimate import Cost, duration
from warmstart.reporting.terminal import Terminal


def print_costs(terminal: Terminal, lines: Sequence[str], costs: Sequence[Cost]) -> None:
    """Print the plan and its estimate, then a row for each optimizer and method that has runs left."""
    for line in lines:
        terminal.print(line)
    if not costs:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in ("optimizer", "method", "runs", "steps", "time, one by one"):
        table.add_column(head, justify="left" if head in ("optimizer", "method") else "right")
    for cost in costs:
        table.add_row(cost.optimizer, cost.method, str(cost.runs), f"{cost.steps:,.0f}", duration(cost.seconds))
    terminal.print(table)
