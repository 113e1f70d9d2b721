"""What a tracker has to do: open one tracked run for each run of a grid, and take points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

RunStatus = Literal["done", "diverged", "interrupted"]


@dataclass(frozen=True)
class TrackedGroup:
    """What groups the tracked runs."""

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
    """Some measurements at one place of an axis."""

    axis: Literal["stage", "optimizer_steps"]
    at: int
    """Stage from 1, or optimizer steps since the run began."""
    values: Mapping[str, float]


class Record(Protocol):
    """A tracked run that is open."""

    def log(self, points: Sequence[Point]) -> None:
        """Record points, so that a kill does not lose them."""

    def end(self, status: RunStatus) -> None:
        """Close it; an interrupted one is opened again by the next start."""


class Service(Protocol):
    """A tracker's side of a comparison."""

    def open(self, run: TrackedRun) -> Record:
        """Begin a tracked run, or go on with it."""

    def close(self, *, complete: bool) -> None:
        """After all runs that were open have ended."""
