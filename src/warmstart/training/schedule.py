"""The learning rate of an update, in closed form: what is a function of position alone needs no state to go on from."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

SCHEDULES = ("constant", "cosine", "step", "one-cycle")
DECAY = 0.2
"""What ``step`` multiplies the rate by at each milestone: that of Wide ResNets and of the DASH paper's appendix."""
MILESTONES = (0.3, 0.6, 0.8)
"""Shares of a stage at which ``step`` lowers the rate, unless epochs are given: those of Wide ResNets."""
RISE, START, END = 0.3, 1 / 25, 1e-4
"""``one-cycle``: the share of a stage in which the rate rises, what it rises from, and how far below that it ends."""


@dataclass(frozen=True)
class Schedule:
    """How the rate moves within a stage; it begins anew at each stage."""

    kind: str = "constant"
    """One of `SCHEDULES`."""
    epochs: int | None = None
    """Of a stage; ``cosine`` and ``one-cycle`` need them."""
    warmup: float = 0
    """Epochs over which the rate climbs, update by update; the last of these updates has the full rate."""
    milestones: tuple[int, ...] = ()
    """Epochs from which on ``step`` has lowered the rate once more."""

    def rate(self, base: float, epoch: int, batch: int, batches: int) -> float:
        """The learning rate of an update, ``base`` being the full one; epochs and their batches count from 0."""
        done, climb = epoch * batches + batch, round(self.warmup * batches)
        if done < climb:
            return base * (done + 1) / climb
        if self.kind == "step":
            return base * DECAY ** bisect_right(self.milestones, epoch)
        if self.kind == "constant" or self.epochs is None:
            return base
        past = (done - climb) / (self.epochs * batches - climb)
        if self.kind == "cosine":
            return _between(base, 0.0, past)
        low = base * START
        return (
            _between(low, base, past / RISE) if past < RISE else _between(base, low * END, (past - RISE) / (1 - RISE))
        )


def _between(first: float, last: float, share: float) -> float:
    """From the first value to the last along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
