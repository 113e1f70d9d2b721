"""How far a tracker has recorded each run, beside the comparison: what is in it is not recorded again."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from warmstart.errors import InputError
from warmstart.storage.atomic import write_text


@dataclass
class Recorded:
    """What a tracker has of one run."""

    stage: int = 0
    """Its last finished stage."""
    steps: int = 0
    """Its last point, in optimizer steps since the run began."""


class Journal:
    """One tracker's file."""

    def __init__(self, file: Path) -> None:
        """Read the file, or make one with an id of its own.

        The id lives as long as the comparison's folder: not so a name made of its path, which would lead a new
        comparison in an old place to the tracked runs of the old one.

        Args:
            file: Where it is kept.

        Raises:
            InputError: If it is damaged.
        """
        self._file = file
        self.id = secrets.token_hex(4)
        self.runs: dict[str, Recorded] = {}
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            self.write()
            return
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self.id = content["id"]
            self.runs = {name: Recorded(**recorded) for name, recorded in content["runs"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file} is damaged; delete it, and its tracker begins new runs") from error

    def write(self) -> None:
        """Keep it, after what it says has been recorded."""
        runs = {name: asdict(recorded) for name, recorded in self.runs.items()}
        write_text(self._file, json.dumps({"id": self.id, "runs": runs}, indent=1))
