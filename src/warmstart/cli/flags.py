"""How a flag of the command line is declared: its help, its default in brackets, its placeholder."""

from __future__ import annotations

from typing import Any

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
