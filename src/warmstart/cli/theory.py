"""`warmstart theory`: its flags, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from warmstart.data.features_and_noise import PatchWorld
from warmstart.errors import InputError
from warmstart.storage.lock import FolderLock
from warmstart.theory.gradient_descent import METHODS as METHODS_DESCENDED
from warmstart.theory.gradient_descent import Descent
from warmstart.theory.learning import METHODS
from warmstart.theory.settings import DiscreteSettings
from warmstart.theory.study import MEASURES
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

_KEPT = """Features, noise: the length of the filters' part along them.
Kept: of that, after the method has acted on new data; mean over all arrivals."""


def _folder(name: str | Path) -> Path:
    if not str(name).strip():  # as a path it would be the working directory
        raise typer.BadParameter("it is empty; name the output folder, such as out/theory")
    return Path(name)


Out = Annotated[Path, typer.Option(help="Output folder.", metavar="DIR", parser=_folder)]

app = typer.Typer(invoke_without_command=True, epilog=EXAMPLES)


@app.callback()
def theory(
    context: typer.Context,
    classes: Annotated[int, typer.Option(help="Classes.", metavar="N")] = DiscreteSettings.classes,
    features: Annotated[int, typer.Option(help="Features of a class.", metavar="N")] = DiscreteSettings.features,
    examples: Annotated[int, typer.Option(help="New examples a stage.", metavar="N")] = DiscreteSettings.examples,
    stages: Annotated[int, typer.Option(help="Arrivals of data.", metavar="N")] = DiscreteSettings.stages,
    gamma: Annotated[
        int, typer.Option(help="A feature is learned while it occurs in so many live examples.", metavar="N")
    ] = DiscreteSettings.gamma,
    tau: Annotated[
        int, typer.Option(help="An example with so many learned features has no gradient.", metavar="N")
    ] = DiscreteSettings.tau,
    max_probability: Annotated[
        float, typer.Option(help="A feature's probability is drawn from U(0, this).", metavar="X")
    ] = DiscreteSettings.max_probability,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, seeds 0 to N-1.", metavar="N")] = 10,
    out: Out = Path("out/theory"),
) -> None:
    """Run the paper's theory: why a warm start learns too few features, and what forgetting noise would bring.

    Writes theory.csv, theory.png, theory.yaml and theory.html, a page to step through, into --out.
    """
    if context.invoked_subcommand is not None:
        _refuse_flags_before(context)
        return
    from warmstart.theory.page import last_stage_rows, theory_page
    from warmstart.theory.study import run_study, write_study

    settings = DiscreteSettings(classes, features, examples, stages, gamma, tau, max_probability)
    with FolderLock(out):
        with _progress() as progress:
            bar = progress.add_task("streams", total=seeds * len(METHODS))
            study = run_study(settings, seeds, lambda done: progress.update(bar, completed=done))
        files = write_study(study, out, theory_page(study))
    _print_table(("method", *MEASURES.values()), last_stage_rows(study))
    _print_where(stages, seeds, files)


@app.command("gradient-descent", epilog=DESCENT_EXAMPLES)
def gradient_descent(
    classes: Annotated[int, typer.Option(help="Classes.", metavar="N")] = PatchWorld.classes,
    features: Annotated[int, typer.Option(help="Features of a class.", metavar="N")] = PatchWorld.features,
    max_probability: Annotated[
        float, typer.Option(help="A feature's probability is drawn from U(0, this).", metavar="X")
    ] = PatchWorld.max_probability,
    noise: Annotated[
        float, typer.Option(help="Length of an example's noise; a feature's is 1.", metavar="X")
    ] = PatchWorld.noise,
    examples: Annotated[int, typer.Option(help="New images a stage.", metavar="N")] = Descent.examples,
    stages: Annotated[int, typer.Option(help="Arrivals of data.", metavar="N")] = Descent.stages,
    filters: Annotated[int, typer.Option(help="Filters of a class.", metavar="N")] = Descent.filters,
    lr: Annotated[float, typer.Option(help="Learning rate.", metavar="X")] = Descent.lr,
    momentum: Annotated[float, typer.Option(help="Momentum.", metavar="X")] = Descent.momentum,
    init_std: Annotated[
        float, typer.Option(help="Standard deviation of the first weights.", metavar="X")
    ] = Descent.init_std,
    max_steps: Annotated[
        int, typer.Option(help="A stage ends after so many steps at the latest.", metavar="N")
    ] = Descent.max_steps,
    methods: Annotated[
        str,
        typer.Option(
            help="Methods (warmstart methods lists them), and oracle. "
            r"\[default: the paper's four, shrinking alone, oracle]",
            metavar="A,B,C",
            show_default=False,
        ),
    ] = METHODS_DESCENDED,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, seeds 0 to N-1.", metavar="N")] = 3,
    out: Out = Path("out/theory"),
) -> None:
    """Train a two-layer network on images of features and noise, and see what its filters keep of each.

    Writes gradient-descent.csv, .png, .yaml, .html, filters.csv and some of the images into --out.
    """
    import torch

    from warmstart.theory.descent_study import COLUMNS, last_stage_rows, run_descent, write_descent
    from warmstart.theory.gradient_descent import find_methods

    world = PatchWorld(classes, features, max_probability, noise)
    descent = Descent(world, examples, stages, filters, lr, momentum, init_std, max_steps)
    found = find_methods(methods, world)
    torch.set_num_threads(1)  # the matrices are small, and the numbers then do not depend on the cores
    with FolderLock(out):
        with _progress() as progress:
            bar = progress.add_task("networks", total=seeds * len(found))
            study = run_descent(descent, found, seeds, lambda done: progress.update(bar, completed=done))
        files = write_descent(study, out)
    _print_table(COLUMNS, last_stage_rows(study))
    _print_where(stages, seeds, files, _KEPT)


def _refuse_flags_before(context: typer.Context) -> None:
    """Flags of `theory` itself, which a subcommand would never see."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} stands before {context.invoked_subcommand}, which does not see it; put it behind")


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(heads[0], overflow="fold")
    for head in heads[1:]:
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for name, *cells in rows:
        table.add_row(Text(name.replace("[", "\n[", 1)), *cells)  # text, not markup: settings stand in [brackets]
    Console(highlight=False).print(table)


def _print_where(stages: int, seeds: int, files: Sequence[Path], note: str = "") -> None:
    page = next(file for file in files if file.suffix == ".html")
    beside = ", ".join(file.name for file in files if file != page)
    print(f"\nStage {stages}: mean (std) over {counted(seeds, 'seed')}.")
    if note:
        print(note)
    Console(highlight=False).print(f"Beside the page: {beside}", markup=False)
    print(f"page: {page}")


def _progress() -> Progress:
    """A bar on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
