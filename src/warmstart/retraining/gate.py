"""The gate: the candidate against the network in service, on the same held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from warmstart.evidence.paired import of_two_networks
from warmstart.retraining.settings import GateSettings
from warmstart.runs.metric import ACCURACY

Right = NDArray[np.bool_]
"""(N,): which of the held-out examples a network gets right."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    accuracy: float
    """The candidate's."""
    current: float | None = None
    """That of the network in service; None where there is none."""
    difference: float | None = None
    low: float | None = None
    """The 95 % interval of the difference, where the examples show one."""
    high: float | None = None
    churn: float | None = None
    """The share of held-out examples that current has right and the candidate wrong."""
    class_losses: dict[str, float] = field(default_factory=dict)
    """By how much each class's accuracy fell; negative where it rose."""
    objections: tuple[str, ...] = ()
    """Why it must not go into service; none where it may."""

    @property
    def passed(self) -> bool:
        """Whether the candidate may go into service."""
        return not self.objections

    def metrics(self) -> dict[str, float]:
        """The numbers, by their names in the index."""
        told = {
            "accuracy": self.accuracy,
            "current_accuracy": self.current,
            "difference": self.difference,
            "difference_low": self.low,
            "difference_high": self.high,
            "churn": self.churn,
            **{f"class_loss[{name}]": loss for name, loss in self.class_losses.items()},
        }
        return {name: value for name, value in told.items() if value is not None}

    def sentence(self) -> str:
        """The numbers in words."""
        if self.current is None or self.difference is None or self.churn is None:
            return f"accuracy {self.accuracy:.1%} on held-out examples"
        between = ""
        if self.low is not None and self.high is not None:
            between = f"; 95 % interval {_points(self.low)} to {_points(self.high)}"
        difference = f"{_points(self.difference)} points{between}"
        return f"accuracy {self.accuracy:.1%}, current {self.current:.1%} ({difference}), churn {self.churn:.1%}"


def judge(
    candidate: Right, current: Right | None, labels: NDArray[np.int64], classes: Sequence[str], settings: GateSettings
) -> Verdict:
    """Judge a candidate.

    Args:
        candidate: What it gets right.
        current: What the network in service gets right; None where there is none, so that the candidate may pass.
        labels: The classes of the held-out examples, (N,).
        classes: Their names.
        settings: The rule, and what is acceptable.

    Returns:
        The numbers, and the objections.
    """
    accuracy = float(candidate.mean())
    if current is None:
        return Verdict(accuracy)
    estimate = of_two_networks(candidate.astype(np.float64) - current)
    low, high = estimate.interval() if estimate.variance else (None, None)
    losses = {
        classes[label]: float(current[labels == label].mean() - candidate[labels == label].mean())
        for label in np.unique(labels).tolist()
    }
    verdict = Verdict(
        accuracy,
        float(current.mean()),
        estimate.difference,
        low,
        high,
        float((current & ~candidate).mean()),
        losses,
    )
    return Verdict(**{**vars(verdict), "objections": tuple(_objections(verdict, settings))})


def _objections(found: Verdict, settings: GateSettings) -> list[str]:
    assert found.difference is not None
    assert found.churn is not None
    said = []
    if settings.promote == "margin" and found.difference < -settings.margin:
        said.append(f"worse than current by more than the margin of {100 * settings.margin:g} points")
    if settings.promote == "better" and (found.low is None or found.low <= 0):
        said.append("not shown to be better than current (--promote better)")
    if settings.max_churn is not None and found.churn > settings.max_churn:
        said.append(f"churn above --max-churn {settings.max_churn:.1%}")
    if settings.max_class_loss is not None and found.class_losses:
        worst = max(found.class_losses, key=found.class_losses.__getitem__)
        if (loss := found.class_losses[worst]) > settings.max_class_loss:
            said.append(f"class '{worst}' loses {100 * loss:.1f} points, above --max-class-loss")
    return said


def behind_cold(warm: Right, cold: Right) -> tuple[bool, str]:
    """Whether a network trained from scratch is better than the warm line's, and how that is said."""
    estimate = of_two_networks(cold.astype(np.float64) - warm)
    low, high = estimate.interval() if estimate.variance else (estimate.difference, estimate.difference)
    difference = f"{_points(-estimate.difference)} points; 95 % interval {_points(-high)} to {_points(-low)}"
    numbers = f"trained from scratch {cold.mean():.1%}, warm {warm.mean():.1%} ({difference})"
    if low > 0:
        return True, f"the warm line has fallen behind: {numbers}; --method cold for one night would catch up"
    return False, f"the warm line has not fallen behind: {numbers}"


def _points(difference: float) -> str:
    return ACCURACY.difference(difference, "+", unit=False)
