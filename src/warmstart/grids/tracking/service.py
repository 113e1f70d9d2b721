"""What a tracker does: it opens one tracked run for each run of a grid, and records points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

RunStatus = Literal["done", "diverged", "interrupted"]


@dataclass(frozen=True)
class TrackedGroup:
    """The group of tracked runs that belongs to a grid."""

    name: str
    id: str
    """The same in every start, and in no other comparison."""
    out: Path


@dataclass(frozen=True)
class TrackedRun:
    """One run of the grid, as a tracker sees it."""

    name: str
    id: str
    """The same in every start, and of no other run."""
    settings: Mapping[str, Any]
    """Its hyperparameters: text, numbers and booleans."""
    new: bool
    """Whether nothing of it has been recorded yet."""


@dataclass(frozen=True)
class Point:
    """Measurements at one position of an axis."""

    axis: Literal["stage", "optimizer_steps"]
    at: int
    """Stage from 1, or optimizer steps since the run began."""
    values: Mapping[str, float]


class Record(Protocol):
    """An open tracked run."""

    def log(self, points: Sequence[Point]) -> None:
        """Record points durably: they must survive a kill."""

    def end(self, status: RunStatus) -> None:
        """Close the run; an interrupted one is opened again by the next start."""


class Service(Protocol):
    """One tracker, for one comparison."""

    def open(self, run: TrackedRun) -> Record:
        """Start a tracked run, or continue it."""

    def close(self, *, complete: bool) -> None:
        """Called once, after all open runs have ended."""
