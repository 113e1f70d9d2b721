"""The gate: the candidate against the network in service and the best so far, on the same held-out examples.

The best so far, the bar, is the last promoted stage that was shown to be better than the bar before it; the first stage
is the first. So losses that are each within the margin do not add up, night after night, to more than the margin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from warmstart.evidence.paired import ERROR, level_text, two_networks
from warmstart.retraining.settings import GateSettings
from warmstart.runs.metric import ACCURACY
from warmstart.wording import counted

Right = NDArray[np.bool_]
"""(N,): which of the held-out examples a network gets right."""
_ERROR = ERROR / 2
"""Of each interval: a stage has up to two trainings, which share what a night may err by."""


@dataclass(frozen=True, eq=False)
class Rival:
    """A network that the candidate is held against."""

    stage: int
    right: Right
    known: Right
    """(N,): which of the held-out examples are of classes that it knows; of others it has none right."""


@dataclass(frozen=True)
class GateVerdict:
    """What the gate found; differences are the candidate's accuracy less a rival's, in [-1, 1]."""

    accuracy: float
    """The candidate's."""
    tested: int
    """Held-out examples."""
    current: float | None = None
    """That of the network in service; None where there is none."""
    difference: float | None = None
    low: float | None = None
    """The 97.5 % interval of the difference, where the examples show one."""
    high: float | None = None
    known_difference: float | None = None
    """On the classes that current knows; None where no example is of them."""
    bar: int | None = None
    """The stage that is the best so far; None where no network is in service."""
    bar_difference: float | None = None
    """To the bar, on the classes that it knows; None where current is the bar."""
    raises_bar: bool = True
    """Whether the candidate is the bar from now on, if it goes into service."""
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
            "known_difference": self.known_difference,
            "bar_difference": self.bar_difference,
            "churn": self.churn,
            **{f"class_loss[{name}]": loss for name, loss in self.class_losses.items()},
        }
        return {name: value for name, value in told.items() if value is not None}

    def sentence(self) -> str:
        """The numbers in words."""
        if self.current is None or self.difference is None or self.churn is None:
            return f"accuracy {self.accuracy:.1%} on {counted(self.tested, 'held-out example')}"
        between = ""
        if self.low is not None and self.high is not None:
            between = f"; {level_text(_ERROR)} interval {_points(self.low)} to {_points(self.high)}"
        difference = f"{_points(self.difference)} points{between}"
        best = "" if self.bar_difference is None else f", {_points(self.bar_difference)} points to stage {self.bar}"
        accuracies = f"accuracy {self.accuracy:.1%}, current {self.current:.1%} of {self.tested:,} held out"
        return f"{accuracies} ({difference}){best}, churn {self.churn:.1%}"


def judge_candidate(
    candidate: Right,
    current: Rival | None,
    bar: Rival | None,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    settings: GateSettings,
) -> GateVerdict:
    """Judge a candidate.

    Args:
        candidate: What it gets right.
        current: The network in service; None where there is none, so that the candidate may pass.
        bar: The best so far; None where that is current.
        labels: The classes of the held-out examples, (N,).
        classes: Their names.
        settings: The rule, and what is acceptable.

    Returns:
        The numbers, and the objections.
    """
    accuracy = float(candidate.mean())
    if current is None:
        return GateVerdict(accuracy, len(candidate))
    best = bar or current
    low, high = _interval(candidate, current.right, _ERROR) or (None, None)
    above = _interval(candidate, best.right, _ERROR)
    shown = above is not None and above[0] > 0 and (_known_difference(candidate, best) or 0.0) >= 0
    losses = {
        classes[label]: float(current.right[labels == label].mean() - candidate[labels == label].mean())
        for label in np.unique(labels).tolist()
    }
    verdict = GateVerdict(
        accuracy,
        len(candidate),
        float(current.right.mean()),
        _difference(candidate, current.right),
        low,
        high,
        _known_difference(candidate, current),
        best.stage,
        None if bar is None else _known_difference(candidate, bar),
        shown or settings.promote == "always",
        float((current.right & ~candidate).mean()),
        losses,
    )
    return replace(verdict, objections=tuple(_objections(verdict, settings)))


def _interval(candidate: Right, other: Right, error: float) -> tuple[float, float] | None:
    return two_networks(int((candidate & ~other).sum()), int((other & ~candidate).sum()), len(other), error)


def _difference(candidate: Right, other: Right) -> float:
    """Of the accuracies, from whole numbers, so that a loss of 5 in 1000 is 0.005."""
    return (int(candidate.sum()) - int(other.sum())) / len(other)


def _known_difference(candidate: Right, rival: Rival) -> float | None:
    """The difference on the classes that a rival knows, since a class that is new to it hides no loss on the others."""
    if not rival.known.any():
        return None
    return _difference(candidate[rival.known], rival.right[rival.known])


def _objections(found: GateVerdict, settings: GateSettings) -> Iterator[str]:
    assert found.difference is not None
    assert found.churn is not None
    by_more = f"by more than the margin of {100 * settings.margin:g} points"
    lost_on_all = found.difference < -settings.margin
    lost_on_known = (found.known_difference or 0.0) < -settings.margin and not lost_on_all
    if settings.promote == "margin" and lost_on_all:
        yield f"worse than current {by_more}"
    if settings.promote in ("margin", "better") and lost_on_known:
        yield f"worse than current, on the classes that it knows, {by_more}"
    if settings.promote == "margin" and (found.bar_difference or 0.0) < -settings.margin:
        yield f"worse than stage {found.bar}, the best so far, {by_more}"
    if settings.promote == "better" and (found.low is None or found.low <= 0):
        yield "not shown to be better than current (--promote better)"
    if settings.max_churn is not None and found.churn > settings.max_churn:
        yield f"churn above --max-churn {settings.max_churn:.1%}"
    if settings.max_class_loss is not None and found.class_losses:
        worst = max(found.class_losses, key=found.class_losses.__getitem__)
        if (loss := found.class_losses[worst]) > settings.max_class_loss:
            yield f"class '{worst}' loses {100 * loss:.1f} points, above --max-class-loss"


def behind_cold(warm: Right, cold: Right) -> tuple[bool, str]:
    """Whether a network trained from scratch is better than the warm line's, and how that is said."""
    low, high = _interval(cold, warm, ERROR) or (0.0, 0.0)
    interval = f"{level_text(ERROR)} interval {_points(-high)} to {_points(-low)}"
    difference = f"{_points(float(warm.mean() - cold.mean()))} points; {interval}"
    numbers = f"trained from scratch {cold.mean():.1%}, warm {warm.mean():.1%} ({difference})"
    if low > 0:
        return True, f"the warm line has fallen behind: {numbers}; --method cold for one night would catch up"
    return False, f"the warm line is not shown to have fallen behind: {numbers}"


def _points(difference: float) -> str:
    return ACCURACY.difference(difference, "+", unit=False)
