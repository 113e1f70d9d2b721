"""Which run of a grid, and its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunKey:
    """Which run of a grid."""

    method: str
    seed: int
    optimizer: str = ""

    def folder(self, out: Path) -> Path:
        """The run's folder in the grid's folder ``out``; any file system can hold its name."""
        name = "".join(c if c.isalnum() or c in "-_.=," else "_" for c in str(self))
        return out / "runs" / name

    def __str__(self) -> str:
        """The run's name; without an optimizer where training makes its own."""
        return "-".join(filter(None, (self.optimizer, self.method, f"seed{self.seed}")))
