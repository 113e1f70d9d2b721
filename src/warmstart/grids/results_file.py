"""results.csv, as a spreadsheet may open it: no name in it is taken for a formula."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from warmstart.runs.stage_result import WHICH, StageResult, to_csv
from warmstart.storage.atomic import write_text
from warmstart.wording import one_line


def write_results(file: Path, rows: Iterable[StageResult], *, check: Callable[[], None] | None = None) -> None:
    """Write results.csv whole or not at all; ``check`` as for `write_bytes`.

    Names that anybody may have chosen, such as a data folder's, stand there as they are, with two exceptions: control
    characters and bytes that are no UTF-8 become escapes, and what a spreadsheet would take for a formula gets a single
    quote before it, as text does there. Nothing of ours reads the file: a restart reads the checkpoints.
    """
    write_text(file, to_csv(map(_inert, rows)), check=check)


def _inert(row: StageResult) -> StageResult:
    texts = {name: one_line(value) for name in WHICH if isinstance(value := getattr(row, name), str)}
    changes: dict[str, Any] = {
        name: f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text for name, text in texts.items()
    }
    return dataclasses.replace(row, **changes)
