"""The learning rate of a step, in closed form: what is a function of position alone needs no state to go on from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from warmstart.errors import InputError, within


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a step down at each milestone; it starts anew in each stage."""

    milestones: tuple[int, ...]
    """Epochs, ascending, from which on the rate is multiplied once more."""
    factor: float
    """What it is multiplied by."""
    warmup_epochs: int
    """Epochs over which the rate climbs, update by update; the last of these updates has the full rate."""

    def __post_init__(self) -> None:
        if any(before >= after for before, after in pairwise((0, *self.milestones))):
            raise InputError(f"milestones are {self.milestones}; they must be ascending epochs, above 0")
        within("the schedule's factor", self.factor, self.factor > 0, "above 0")
        if self.warmup_epochs < 0:
            raise InputError(f"warm-up is {self.warmup_epochs} epochs; it must be at least 0")

    def rate(self, base: float, epoch: int, batch: int, batches: int) -> float:
        """The learning rate of an update, ``base`` being the full one; epochs and their batches count from 0."""
        rate = base * self.factor ** bisect_right(self.milestones, epoch)
        if epoch >= self.warmup_epochs:
            return rate
        return rate * (epoch * batches + batch + 1) / (self.warmup_epochs * batches)
