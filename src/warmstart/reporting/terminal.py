"""What is shown in a terminal: a console on which a name is text and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from warmstart.wording import one_line


class Terminal(Console):
    """A rich console without markup, emoji codes and highlighting, to which names may bring no control characters.

    A message, which is a plain string, stays one line.
    """

    def __init__(self, **options: Any) -> None:
        """Take the options of `rich.console.Console`."""
        # In a notebook rich would display HTML, whatever file it is given, and a text made in that file would be empty.
        super().__init__(markup=False, emoji=False, highlight=False, force_jupyter=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print messages, or tables and the like."""
        super().print(*(one_line(item) if isinstance(item, str) else item for item in objects), **options)

    def print_path(self, what: str, path: Path) -> None:
        """Print where something lies, in one line however long, so that it can be clicked and copied."""
        self.print(f"{what}: {path}", soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Nobody reads any more: show nothing further, and go on; rich itself would exit."""
        self.quiet = True

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that is shown, without the control characters that a name in it may have."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = segment.text.split("\n")
                yield Segment("\n".join(map(one_line, lines)), segment.style)


def progress_bar(*, hidden: bool = False) -> Progress:
    """A progress bar on a terminal's stderr, which goes at the end; nothing elsewhere."""
    console = Terminal(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal)
