"""What a stream is: arrivals in order, each with all that is trained on, what of it is new, and what is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Arrival(Generic[T]):
    """One arrival of data."""

    train: T
    """Everything that has arrived so far, oldest first, and the new examples last."""
    new: T
    """What has arrived with this stage."""
    test: T | None
    """What is measured on; None where the caller measures."""


class Stream(Protocol[T]):
    """The arrivals of one seed."""

    @property
    def stages(self) -> int:
        """How many arrivals there are."""

    def arrival(self, number: int) -> Arrival[T]:
        """What stage ``number``, counted from 1, brings."""
