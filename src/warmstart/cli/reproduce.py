"""`warmstart reproduce`: its examples, its estimate of the cost, and what it shows at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warmstart.cli.flags import with_flags
from warmstart.grids.worker_server import start_importing
from warmstart.reproduction.settings import ReproduceSettings

EXAMPLES = """Examples:

warmstart reproduce cifar10 --dry-run

warmstart reproduce cifar10 --optimizers sgd --seeds 1

warmstart reproduce cifar100 --data cifar-100-python.tar.gz --methods cold,warm,dash

warmstart reproduce cifar10 --protocol reduced --model small-cnn --seeds 3 --device cpu

Stop it at any time; the same command resumes it.
"""


@with_flags(ReproduceSettings, exclude=("dataset",))
def reproduce(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="cifar10, cifar100, svhn or tiny-imagenet.", show_default=False)
    ],
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check the checksums of files with the official names.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and stop there.")] = False,
    **given: Any,
) -> None:
    """Repeat one of the paper's tables: its protocol, ours beside the published figures, what it will cost first.

    Writes results.csv, table.md, report.html, config.yaml, manifest.json and figures by stage into --out.
    """
    settings = ReproduceSettings.of({"dataset": dataset, **given})
    if settings.may_use_workers and not dry_run:
        start_importing()

    from warmstart.cli.costs import print_costs
    from warmstart.grids.display import Display
    from warmstart.launch import is_first_process
    from warmstart.reporting.terminal import Terminal
    from warmstart.reproduction.report import render_terminal
    from warmstart.reproduction.reproduction import Reproduction

    with Display() as display:
        reproduction = Reproduction(settings, display, verify=verify)
        costs, lines = reproduction.estimate()
        if dry_run:
            terminal = Terminal(quiet=not is_first_process())
            warnings = [f"warning: {warning}" for warning in reproduction.warnings]
            print_costs(terminal, [*reproduction.lines, *warnings, *lines], costs)
            return
        tables = reproduction.run(lines)
    terminal = Terminal()
    render_terminal(tables, terminal)
    terminal.print_path("report", Path(settings.out) / "report.html")
