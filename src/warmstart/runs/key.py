"""Which run of a grid, and its folder."""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from pathlib import Path

_PLAIN = frozenset(string.ascii_lowercase + string.digits + "-_=,.")
"""No capital letters: some file systems take them for small ones."""


@dataclass(frozen=True)
class RunKey:
    """Which run of a grid."""

    method: str
    seed: int
    optimizer: str = ""

    def folder(self, out: Path) -> Path:
        """The run's folder in the grid's folder ``out``, its alone; any file system can hold its name."""
        name = str(self)
        plain = "".join(c if c in _PLAIN else "_" for c in name)[:100]
        digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
        return out / "runs" / (plain if plain == name else f"{plain}.{digest}")

    def __str__(self) -> str:
        """The run's name; without an optimizer where training makes its own."""
        return "-".join(filter(None, (self.optimizer, self.method, f"seed{self.seed}")))
