"""`warmstart compare`: its flags, and what it shows while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from warmstart.cli import flags
from warmstart.cli.flags import flag
from warmstart.comparison.images import run_comparison
from warmstart.comparison.report import render_terminal
from warmstart.grids.display import Display
from warmstart.grids.settings import make_config

EXAMPLES = """Examples:

warmstart compare

warmstart compare --data photos/ --image-size 64 --model resnet18 --stages 5 --stage-size 1000 --batch-size 128

warmstart compare --data hf:uoft-cs/cifar10 --stage-size 500 --batch-size 64 --methods 'cold,warm,dash\\[alpha=0.1]'

warmstart compare out/compare/config.yaml --seeds 10

Stop it at any time; the same command resumes it.
"""


def compare(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="Settings by key; flags win.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        flag(
            "digits; features-and-noise; images by class in folders or an archive; parquet; .npz; CIFAR, SVHN and "
            "Tiny-ImageNet as they are downloaded; hf:NAME",
            "digits",
            "NAME|PATH",
        ),
    ] = None,
    model: Annotated[
        str | None, flag("small-cnn, mlp, resnet18, vgg16, or your own pkg.module:factory", "small-cnn", "NAME")
    ] = None,
    methods: Annotated[
        str | None,
        flag(
            "Methods (warmstart methods lists them), settings in brackets; or your own pkg.module:Class",
            "cold,warm,shrink-perturb,dash",
            "A,B,C",
        ),
    ] = None,
    optimizer: Annotated[str | None, flag("sgd, sam or adamw", "sgd", "NAME")] = None,
    stages: Annotated[int | None, flag("Arrivals of data", "6", "N")] = None,
    stage_size: Annotated[int | None, flag("New examples a stage", "50", "N")] = None,
    seeds: Annotated[int | None, flag("Repetitions, seeds 0 to N-1", "5", "N")] = None,
    batch_size: Annotated[int | None, flag("Examples an update", "16", "N")] = None,
    lr: Annotated[float | None, flag("Learning rate", "0.001", "X")] = None,
    momentum: Annotated[float | None, flag("Momentum; beta_1 of adamw", "0.9", "X")] = None,
    weight_decay: Annotated[float | None, flag("Weight decay", "0", "X")] = None,
    until: Annotated[
        float | None, flag("A stage ends when an epoch's training accuracy reaches this", "0.999", "X")
    ] = None,
    max_epochs: Annotated[int | None, flag("A stage ends after so many epochs at the latest", "10000", "N")] = None,
    image_size: Annotated[int | None, flag("Resize images to N x N pixels", "as they are", "N")] = None,
    image_column: Annotated[str | None, flag("The images' column of a table", "by type, then by name", "NAME")] = None,
    label_column: Annotated[str | None, flag("The labels' column of a table", "by type, then by name", "NAME")] = None,
    margin: Annotated[float | None, flag("Loss in accuracy that is acceptable, 0.01 for one point", "0", "X")] = None,
    precision: flags.Precision = None,
    device: flags.Device = None,
    jobs: flags.Jobs = None,
    threads: flags.Threads = None,
    executor: flags.Executor = None,
    ray_address: flags.RayAddress = None,
    gpus_per_run: flags.GpusPerRun = None,
    track: flags.Track = None,
    out: Annotated[str | None, flag("Output folder; resumed if it exists", "out/compare", "DIR")] = None,
) -> None:
    """Compare methods on your data: the grid of methods and seeds, a table, a report and a plain verdict.

    Writes results.csv, table.md, report.html and config.yaml into --out.
    """
    given = {key: value for key, value in locals().items() if key != "config" and value is not None}
    settings = make_config(config, given)
    with Display() as display:
        results, verdict = run_comparison(settings, display)
    render_terminal(results, verdict, Console(highlight=False))
    print(f"report: {Path(settings.out) / 'report.html'}")
