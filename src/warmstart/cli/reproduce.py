"""`warmstart reproduce`: the paper's tables, ours beside the published figures."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from warmstart.cli import flags
from warmstart.cli.flags import flag
from warmstart.grids.display import Display
from warmstart.grids.settings import validated
from warmstart.reproduction.estimate import Cost, duration
from warmstart.reproduction.report import render_terminal
from warmstart.reproduction.reproduction import Reproduction
from warmstart.reproduction.settings import ReproduceConfig, default_seeds
from warmstart.training.parallel import is_first_process

EXAMPLES = """Examples:

warmstart reproduce cifar10 --dry-run

warmstart reproduce cifar10 --optimizers sgd --seeds 1

warmstart reproduce cifar100 --data cifar-100-python.tar.gz --methods cold,warm,dash

warmstart reproduce cifar10 --protocol reduced --model small-cnn --seeds 3 --device cpu

Stop it at any time; the same command resumes it.
"""


def reproduce(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="cifar10, cifar100, svhn or tiny-imagenet.", show_default=False)
    ],
    data: Annotated[
        str | None, flag("The data, as it is downloaded or as parquet; without it, the hub", "the hub", "PATH")
    ] = None,
    protocol: Annotated[
        str | None, flag("incremental (the main table), sota, half; reduced for two cores", "incremental", "NAME")
    ] = None,
    model: Annotated[str | None, flag("resnet18, vgg16, mlp, small-cnn", "resnet18", "NAME")] = None,
    methods: Annotated[str | None, flag("Methods, settings in brackets", "the paper's four, and fire", "A,B,C")] = None,
    optimizers: Annotated[str | None, flag("sgd, sam, adamw", "sgd,sam", "A,B")] = None,
    seeds: Annotated[int | None, flag("Repetitions, seeds 0 to N-1", "5; tiny-imagenet 3", "N")] = None,
    stages: Annotated[int | None, flag("Only the first N stages", "the protocol's", "N")] = None,
    stage_size: Annotated[int | None, flag("New examples a stage", "the protocol's", "N")] = None,
    batch_size: Annotated[int | None, flag("Examples an update", "the protocol's", "N")] = None,
    max_epochs: Annotated[int | None, flag("A stage ends after so many epochs", "the protocol's", "N")] = None,
    precision: flags.Precision = None,
    device: flags.Device = None,
    jobs: flags.Jobs = None,
    threads: flags.Threads = None,
    executor: flags.Executor = None,
    ray_address: flags.RayAddress = None,
    gpus_per_run: flags.GpusPerRun = None,
    track: flags.Track = None,
    out: Annotated[str | None, flag("Output folder; resumed if it exists", "out/reproduce-DATASET", "DIR")] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check the checksums of files with the official names.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and stop there.")] = False,
) -> None:
    """Repeat one of the paper's tables: its protocol, ours beside the published figures, what it will cost first.

    Writes results.csv, table.md, report.html, config.yaml, manifest.json and figures by stage into --out.
    """
    given = {key: value for key, value in locals().items() if key not in ("verify", "dry_run") and value is not None}
    usual: dict[str, Any] = {"seeds": default_seeds(dataset), "out": f"out/reproduce-{dataset}"}
    config = validated(ReproduceConfig, {**usual, **given})
    with Display() as display:
        reproduction = Reproduction(config, display, verify=verify)
        costs, lines = reproduction.estimate()
        if dry_run:
            console = Console(highlight=False, quiet=not is_first_process())
            for line in [*reproduction.lines, *lines]:
                console.print(line, markup=False)
            console.print(_cost_table(costs))
            return
        tables = reproduction.run(lines)
    render_terminal(tables, Console(highlight=False))
    print(f"report: {config.out}/report.html")


def _cost_table(costs: list[Cost]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in ("optimizer", "method", "runs", "steps", "time, one by one"):
        table.add_column(head, justify="left" if head in ("optimizer", "method") else "right")
    for cost in costs:
        method = cost.method.replace("[", r"\[")
        table.add_row(cost.optimizer, method, str(cost.runs), f"{cost.steps:,.0f}", duration(cost.seconds))
    return table
