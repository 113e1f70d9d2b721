"""How far a tracker has recorded each run, kept in the comparison's folder so that nothing is recorded twice."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from warmstart.errors import InputError
from warmstart.storage.atomic import write_text


@dataclass
class Recorded:
    """How much of one run a tracker has."""

    stage: int = 0
    """Its last finished stage."""
    steps: int = 0
    """Its last point, in optimizer steps since the run began."""


class Journal:
    """One tracker's file."""

    def __init__(self, file: Path) -> None:
        """Read the file, or write one with a new id.

        The id lasts as long as the comparison's folder: were it derived from the path, a new comparison in an old place
        would continue the old one's tracked runs.

        Raises:
            InputError: If the file is damaged.
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
            raise InputError(f"{file} is damaged; delete it, and the tracker starts new runs") from error

    def write(self) -> None:
        """Write the file; call it after the service has taken the points."""
        runs = {name: asdict(recorded) for name, recorded in self.runs.items()}
        write_text(self._file, json.dumps({"id": self.id, "runs": runs}, indent=1))
