"""`warmstart report`: writes the table and the page of a comparison or reproduction again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from warmstart.errors import InputError

EXAMPLES = """Examples:

warmstart report out/compare

warmstart report out/compare --margin 0.01
"""


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of compare or reproduce, complete or not.")],
    margin: Annotated[
        float | None, typer.Option(help="Loss in accuracy that is acceptable, 0.01 for one point.", show_default=False)
    ] = None,
) -> None:
    """Write table.md and report.html of a comparison or reproduction again, from what it has measured so far."""
    from warmstart.comparison import images
    from warmstart.grids.record import kind_of
    from warmstart.reporting.terminal import Terminal
    from warmstart.reproduction import report as reproduction_report
    from warmstart.reproduction import reproduction
    from warmstart.reproduction.settings import ReproductionRecord

    terminal = Terminal()
    if kind_of(folder) == ReproductionRecord.kind:
        if margin is not None:
            raise InputError(
                f"{folder} holds a reproduction, which has no verdict that a margin could change; drop --margin"
            )
        reproduction_report.render_terminal(reproduction.report_again(folder), terminal)
    else:
        images.report_again(folder, margin).show(terminal)
    terminal.print_path("report", folder / "report.html")
