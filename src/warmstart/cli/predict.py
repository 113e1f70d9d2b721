"""`warmstart predict`: what a model says of image files, and where that goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warmstart.errors import InputError, WorkFailedError
from warmstart.interruption import begin_work
from warmstart.wording import counted

if TYPE_CHECKING:
    from warmstart.reporting.terminal import Terminal
    from warmstart.serving.prediction_table import Table, Write

EXAMPLES = """Examples:

warmstart predict --state state photo.jpg

warmstart predict --state state photos/ --out predictions.csv

warmstart predict --state state photos/ more/ --top 3 --probabilities --out predictions.parquet

warmstart predict --state state/models/0003 photos/ --batch-size 64 --device cuda:1 > predictions.csv
"""


def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Image files, and folders with images at any depth.")
    ],
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="STATE",
            help="The state of `warmstart retrain`, for its current model, or the folder of any of its models.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=r"Write a table with a row an image, .csv or .parquet. \[default: to the terminal]",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=r"Images that are computed at a time. \[default: 500, fewer of large ones]",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Such as cpu or cuda:1; auto is the accelerator that is there.")
    ] = "auto",
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Name the N most probable classes of each image.")] = 1,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add a column for each class, with its probability.")
    ] = False,
) -> None:
    """Say what is in images, with the model that `warmstart retrain` has promoted.

    One image or a folder of millions takes the same memory. Files that cannot be read get a row that says why.
    """
    from warmstart.serving.prediction_table import Table, check_out

    where = _named(state)
    if out is not None:
        check_out(out)

    from warmstart.reporting.terminal import Terminal, progress_bar
    from warmstart.serving.predicted_files import find_images, image_files, predict_files
    from warmstart.serving.served import load

    found, served = find_images(paths), load(where, device)
    terminal = Terminal()
    shown = out is None and terminal.is_terminal
    begin_work()
    read, failed, example = 0, 0, ""
    with _table(out, Table(served.classes, top, probabilities), terminal) as write, progress_bar(hidden=shown) as bar:
        images = bar.add_task("images", total=None if bar.disable else sum(1 for _ in image_files(found)))
        for batch in predict_files(served, image_files(found), batch_size):
            write(batch)
            bar.update(images, advance=len(batch.paths))
            read += len(batch.paths) - len(batch.unreadable)
            failed += len(batch.unreadable)
            example = example or next(iter(batch.unreadable.values()), "")
    _warn(read, failed, example)
    if out is not None:
        terminal.print_path(counted(read + failed, "image"), out)


def _named(state: Path | None) -> Path:
    """The model's place, or InputError if none is named."""
    if state is None:
        raise InputError("no model is named; give --state STATE of `warmstart retrain`, or the folder of a model")
    return state


@contextmanager
def _table(out: Path | None, table: Table, terminal: Terminal) -> Iterator[Write]:
    """Open the file, or what shows a table on stdout: lines in a terminal, CSV elsewhere; yields what adds a batch."""
    from warmstart.serving.prediction_table import to_csv, to_terminal, written_to

    if out is not None:
        with written_to(out, table) as write:
            yield write
    else:
        yield to_terminal(terminal, table) if terminal.is_terminal else to_csv(sys.stdout, table)


def _warn(read: int, failed: int, example: str) -> None:
    """Say what could not be read; WorkFailedError if nothing could be."""
    from warmstart.reporting.terminal import Terminal

    if failed and not read:
        raise WorkFailedError(f"no image could be read of {failed:,}, such as {example}", resumable=False)
    if failed:
        message = f"warning: {failed:,} of {counted(read + failed, 'image')} could not be read, such as {example}"
        Terminal(stderr=True).print(message, style="yellow", soft_wrap=True)
