"""Markdown for table.md: tables and sentences in which a name that anybody may have chosen is text and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from warmstart.wording import one_line


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, aligned, its first column to the left; each line ends with a line break."""
    lines = [[_cell(cell) for cell in line] for line in (heads, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (aligned[0], rule, *aligned[1:]))


def sentence(text: str) -> str:
    """A sentence as one line without HTML; text in `backquotes` stays code."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;")


def _cell(text: str) -> str:
    return re.sub(r"[\\`*<&|]|(?<=\])\(", r"\\\g<0>", one_line(text))  # ]( would make a link
