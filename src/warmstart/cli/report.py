"""`warmstart report`: the table and the page of a comparison, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from warmstart.experiments.comparison import report_again
from warmstart.experiments.report import render_terminal

EXAMPLES = """Examples:

warmstart report out/compare

warmstart report out/compare --margin 0.01
"""


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a comparison, complete or not.")],
    margin: Annotated[
        float | None, typer.Option(help="Loss in accuracy that is acceptable, 0.01 for one point.", show_default=False)
    ] = None,
) -> None:
    """Write table.md and report.html of a comparison again, from what it has measured so far."""
    results, verdict = report_again(folder, margin)
    render_terminal(results, verdict, Console(highlight=False))
    print(f"report: {folder / 'report.html'}")
