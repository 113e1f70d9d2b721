"""Predictions as a table, a row a file: CSV, parquet, or lines on a terminal, written as they come."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from warmstart.errors import InputError, require
from warmstart.storage.atomic import new_file
from warmstart.wording import inert, one_line, printable

if TYPE_CHECKING:
    from warmstart.reporting.terminal import Terminal
    from warmstart.serving.predicted_files import PredictedFiles

Write = Callable[["PredictedFiles"], None]
"""Adds a batch to a table."""
SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Table:
    """The columns: ``path``, ``label``, ``probability``, perhaps more classes and all probabilities, ``error``."""

    classes: tuple[str, ...]
    top: int = 1
    """How many classes of each image are named, the most probable first."""
    every: bool = False
    """Whether each class has a column with its probability."""

    def __post_init__(self) -> None:
        count = len(self.classes)
        require(1 <= self.top <= count, f"top is {self.top}; it must be at least 1 and at most {count}, the classes")

    def columns(self) -> dict[str, type]:
        """The type of each column by its name."""
        ends = ["", *(f"_{rank}" for rank in range(2, self.top + 1))]
        found: dict[str, type] = {"path": str}
        for end in ends:
            found |= {f"label{end}": str, f"probability{end}": float}
        if self.every:
            found |= {f"p_{name}": float for name in self.classes}
        return {**found, "error": str}

    def rows(self, batch: PredictedFiles) -> Iterator[list[Any]]:
        """A row for each file; of one that cannot be read only the path and the reason are there."""
        said = self._of_read(batch)
        nothing = [None] * (len(self.columns()) - 2)
        for place, path in enumerate(batch.paths):
            reason = batch.unreadable.get(place)
            if reason is None:
                yield [str(path), *next(said), None]
            else:
                yield [str(path), *nothing, reason_alone(path, reason)]

    def _of_read(self, batch: PredictedFiles) -> Iterator[list[Any]]:
        if batch.predictions is None:
            return
        probabilities, labels = batch.predictions.probabilities, batch.predictions.labels[:, None]
        # The label comes first also where the probabilities of two classes are rounded to the same number.
        ranked = probabilities.scatter_add(1, labels, probabilities.new_ones(labels.shape)).topk(self.top).indices
        for places, row in zip(ranked.tolist(), probabilities.tolist(), strict=True):
            best = [value for place in places for value in (self.classes[place], row[place])]
            yield best + (row if self.every else [])


def reason_alone(path: Path, message: str) -> str:
    """Why a file cannot be read, without its path and the remedy."""
    return one_line(message.removeprefix(f"{path}: ").partition("; ")[0])


def check_out(file: Path) -> None:
    """Raise InputError unless a table can be written there, as far as names tell."""
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"{file} is no kind of table that is written; let its name end in {' or '.join(SUFFIXES)}")
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"{file} is a folder" if file.is_dir() else f"{file.parent} is no folder; make it first")


@contextmanager
def written_to(file: Path, table: Table) -> Iterator[Write]:
    """Write a file whole or not at all, CSV or parquet by its suffix.

    Yields:
        What adds a batch.
    """
    with new_file(file) as raw:
        if file.suffix.lower() == ".parquet":
            with _parquet(raw, table) as write:
                yield write
        else:
            text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
            yield to_csv(text, table)
            text.flush()
            text.detach()


def to_csv(text: TextIO, table: Table) -> Write:
    """Write CSV as a spreadsheet may open it: no name in it is taken for a formula.

    Returns:
        What adds a batch, once the head is written.
    """
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(inert, table.columns()))

    def write(batch: PredictedFiles) -> None:
        writer.writerows([_cell(value) for value in row] for row in table.rows(batch))

    return write


def _cell(value: str | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return "" if value is None else inert(value)


@contextmanager
def _parquet(raw: Any, table: Table) -> Iterator[Write]:
    import pyarrow
    from pyarrow import parquet

    columns = table.columns()
    kinds = {str: pyarrow.string(), float: pyarrow.float32()}
    schema = pyarrow.schema([(printable(name), kinds[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(raw, schema) as writer:

        def write(batch: PredictedFiles) -> None:
            rows = ([printable(v) if isinstance(v, str) else v for v in row] for row in table.rows(batch))
            arrays = [pyarrow.array(c, kind) for c, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

        yield write


def to_terminal(terminal: Terminal, table: Table) -> Write:
    """Show a line a file: how probable, which class, which file.

    Returns:
        What shows a batch.
    """
    width = min(30, max(map(len, table.classes)))

    def write(batch: PredictedFiles) -> None:
        for path, *said, error in table.rows(batch):
            pairs = zip(said[: 2 * table.top : 2], said[1 : 2 * table.top : 2], strict=True)
            shown = "  ".join(f"{p:7.1%}  {name:<{width}.{width}}" for name, p in pairs) if error is None else error
            terminal.print(f"{shown}  {path}", soft_wrap=True)

    return write
