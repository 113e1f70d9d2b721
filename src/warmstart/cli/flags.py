"""How a flag is declared, and the flags that every grid of runs has."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def flag(help_: str, default: str, metavar: str) -> Any:
    """Declare a flag whose default is filled in by the settings, not by the command line.

    Args:
        help_: What it does.
        default: What it is if it is not given.
        metavar: What stands for its value.

    Returns:
        What `Annotated` takes.
    """
    return typer.Option(help=rf"{help_} \[default: {default}]", show_default=False, metavar=metavar)


Precision = Annotated[str | None, flag("Of training steps: tf32, fp32 or bf16", "tf32", "NAME")]
Device = Annotated[str | None, flag("auto, cpu, cuda, cuda:1, mps", "auto", "NAME")]
Jobs = Annotated[str | None, flag("Parallel processes", "auto", "N")]
Threads = Annotated[str | None, flag("Threads a run", "auto", "N")]
Executor = Annotated[str | None, flag("local, or ray for many machines", "local", "NAME")]
RayAddress = Annotated[str | None, flag("The cluster: auto, HOST:PORT, ray://HOST:PORT", "none", "ADDRESS")]
GpusPerRun = Annotated[float | None, flag("With ray: GPUs a run, also a fraction", "1", "X")]
Track = Annotated[str | None, flag("tensorboard, wandb, mlflow", "none", "A,B")]
