"""`warmstart compare`: its examples, and what it shows at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warmstart.cli.flags import with_flags
from warmstart.comparison.settings import CompareSettings
from warmstart.grids.worker_server import start_importing
from warmstart.settings import from_file_and_flags

EXAMPLES = """Examples:

warmstart compare

warmstart compare --data photos/ --image-size 64 --model resnet18 --stages 5 --stage-size 1000 --batch-size 128

warmstart compare --data hf:uoft-cs/cifar10 --stage-size 500 --batch-size 64 --methods 'cold,warm,dash\\[alpha=0.1]'

warmstart compare --data photos/ --order month --test next --image-size 64

warmstart compare out/compare/config.yaml --seeds 10

warmstart compare --data photos/ --image-size 64 --protocol practice --methods cold,warm,rewarm,dash --dry-run

Stop it at any time; the same command resumes it.
"""


@with_flags(CompareSettings)
def compare(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="Settings by key; flags win.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and stop there.")] = False,
    **given: Any,
) -> None:
    """Compare methods on your data: the grid of methods and seeds, a table, a report and a plain verdict.

    Writes results.csv, table.md, report.html and config.yaml into --out.
    """
    settings = from_file_and_flags(CompareSettings, config, given)
    if settings.may_use_workers and not dry_run:
        start_importing()

    from warmstart.cli.costs import print_costs
    from warmstart.comparison.images import ImageComparison
    from warmstart.grids.display import Display
    from warmstart.launch import is_first_process
    from warmstart.reporting.terminal import Terminal

    with Display() as display:
        comparison = ImageComparison(settings, display)
        if dry_run:
            costs, lines = comparison.estimate()
            warnings = [f"warning: {warning}" for warning in comparison.warnings]
            print_costs(Terminal(quiet=not is_first_process()), [*comparison.lines, *warnings, *lines], costs)
            return
        outcome = comparison.run()
    terminal = Terminal()
    outcome.show(terminal)
    terminal.print_path("report", Path(settings.out) / "report.html")
