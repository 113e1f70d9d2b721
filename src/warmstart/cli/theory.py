"""`warmstart theory`: its flags, and what it shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import typer

from warmstart.cli.flags import with_flags
from warmstart.cli.plain_flags import Command, Group
from warmstart.errors import InputError
from warmstart.interruption import begin_work
from warmstart.theory.settings import DescentSettings, DiscreteSettings
from warmstart.wording import counted

EXAMPLES = """Examples:

warmstart theory

warmstart theory --gamma 20 --tau 2 --out out/easier

warmstart theory --examples 100 --stages 10 --gamma 10 --seeds 50

warmstart theory gradient-descent --help
"""

DESCENT_EXAMPLES = """Examples:

warmstart theory gradient-descent

warmstart theory gradient-descent --noise 2 --methods 'warm,dash,dash\\[lambda=0.05]'
"""

_KEPT = (
    "Features, noise: the length of the filters' part along them.",
    "Kept: of that, after the method has acted on new data; mean over all arrivals.",
)

app = typer.Typer(cls=Group, invoke_without_command=True, epilog=EXAMPLES)


@app.callback()
@with_flags(DiscreteSettings)
def theory(context: typer.Context, **given: Any) -> None:
    """Run the paper's theory: why a warm start learns too few features, and what forgetting noise would bring.

    Writes theory.csv, theory.png, theory.yaml and theory.html, a page to step through, into --out.
    """
    if context.invoked_subcommand is not None:
        _refuse_flags_before(context.invoked_subcommand, given)
        return
    settings = DiscreteSettings.of(given)

    from warmstart.reporting.terminal import progress_bar
    from warmstart.storage.lock import FolderLock
    from warmstart.theory.learning import METHODS
    from warmstart.theory.page import last_stage_rows, theory_page
    from warmstart.theory.study import MEASURES, run_study, write_study

    out = Path(settings.out)
    begin_work()
    with FolderLock(out):
        with progress_bar() as progress:
            bar = progress.add_task("streams", total=settings.seeds * len(METHODS))
            study = run_study(settings, lambda done: progress.update(bar, completed=done))
        files = write_study(study, out, theory_page(study))
    _print_table(("method", *MEASURES.values()), last_stage_rows(study))
    _print_where(settings, files)


@app.command("gradient-descent", cls=Command, epilog=DESCENT_EXAMPLES)
@with_flags(DescentSettings)
def gradient_descent(**given: Any) -> None:
    """Train a two-layer network on images of features and noise, and see what its filters keep of each.

    Writes gradient-descent.csv, .png, .yaml, .html, filters.csv and some of the images into --out.
    """
    settings = DescentSettings.of(given)

    import torch

    from warmstart.reporting.terminal import progress_bar
    from warmstart.storage.lock import FolderLock
    from warmstart.theory.descent_study import COLUMNS, last_stage_rows, run_descent, write_descent

    torch.set_num_threads(1)  # the matrices are small, and the numbers then do not depend on the cores
    out = Path(settings.out)
    begin_work()
    with FolderLock(out):
        with progress_bar() as progress:
            bar = progress.add_task("networks", total=settings.seeds * len(settings.methods))
            study = run_descent(settings, lambda done: progress.update(bar, completed=done))
        files = write_descent(study, out)
    _print_table(COLUMNS, last_stage_rows(study))
    _print_where(settings, files, _KEPT)


def _refuse_flags_before(subcommand: str, given: Collection[str]) -> None:
    """Refuse flags of `theory` itself, which a subcommand would ignore."""
    if given:
        flag = f"--{next(iter(given)).replace('_', '-')}"
        raise InputError(f"{flag} stands before {subcommand}, which would ignore it; put it after {subcommand}")


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from warmstart.evidence.table import terminal_table
    from warmstart.reporting.terminal import Terminal

    table = terminal_table(heads)
    for name, *cells in rows:
        table.add_row(name.replace("[", "\n[", 1), *cells)
    Terminal().print(table)


def _print_where(
    settings: DiscreteSettings | DescentSettings, files: Sequence[Path], notes: Sequence[str] = ()
) -> None:
    from warmstart.reporting.terminal import Terminal

    terminal = Terminal()
    page = next(file for file in files if file.suffix == ".html")
    beside = ", ".join(file.name for file in files if file != page)
    terminal.print()
    terminal.print(f"Stage {settings.stages}: mean (std) over {counted(settings.seeds, 'seed')}.")
    for sentence in notes:
        terminal.print(sentence)
    terminal.print(f"Beside the page: {beside}")
    terminal.print_path("page", page)
