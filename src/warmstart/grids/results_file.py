"""results.csv, as a spreadsheet may open it: no name in it is taken for a formula."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from warmstart.runs.stage_result import WHICH, StageResult, to_csv
from warmstart.storage.atomic import write_text
from warmstart.wording import inert


def write_results(file: Path, rows: Iterable[StageResult], *, check: Callable[[], None] | None = None) -> None:
    """Write results.csv whole or not at all; ``check`` as for `write_bytes`.

    Names that anybody may have chosen, such as a data folder's, are made `inert`. Nothing of ours reads the file: a
    restart reads the checkpoints.
    """
    write_text(file, to_csv(map(_inert, rows)), check=check)


def _inert(row: StageResult) -> StageResult:
    changes: dict[str, Any] = {name: inert(value) for name in WHICH if isinstance(value := getattr(row, name), str)}
    return dataclasses.replace(row, **changes)
