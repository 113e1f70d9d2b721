"""Each method against the reference: what it gains in the last stage, what it costs, and how sure both are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmstart.evidence.paired import ERROR, Estimate, estimate, ratio_interval
from warmstart.runs.results import Results

ENOUGH_SEEDS = 3
"""With two seeds a 95 % t interval reaches 12.7 standard errors to each side: below three no claim is made."""

NOT_JUDGED = ("diverged", "too few seeds")


@dataclass(frozen=True)
class Comparison:
    """One method against the reference, in the last stage, paired over seeds."""

    method: str
    seeds: int
    """How many seeds both methods have finished."""
    difference: float
    """Mean metric of the method minus that of the reference; NaN without a common seed."""
    low: float
    high: float
    """The interval of the difference, at the level that its share of the error leaves; infinite without a claim."""
    p_value: float
    """Of a loss of exactly the margin (without one, of no difference), times the number of methods judged as Bonferroni
    has it: at most the accepted error where the interval leaves that loss out. NaN where nothing can be claimed."""
    steps_ratio: float
    """Steps of the last stage over the reference's; NaN where steps are not counted."""
    total_steps_ratio: float
    """Steps of all stages over the reference's."""
    total_steps_low: float
    total_steps_high: float
    """The interval of that ratio, from `total_steps`, at the level of the difference's."""
    seeds_needed: int | None
    """With how many seeds the interval would exclude a loss beyond the margin, if they go on as these did; None if no
    practical number would."""
    admitting_margin: float
    """The smallest margin with which the method would be admitted; infinite where nothing can be claimed."""
    decision: str
    """``better``; ``no worse``: a loss beyond the margin is excluded; ``worse``: such a loss is shown; ``unclear``;
    ``too few seeds``; ``diverged``: in at least one seed, and so never recommended."""

    @property
    def saves_steps(self) -> bool:
        """Whether it is shown that all stages together take fewer steps than the reference's."""
        return self.total_steps_high < 1


def estimate_difference(results: Results, method: str, reference: str) -> Estimate | None:
    """A method's last metric minus another's, over the seeds that both have finished; None if there are none."""
    seeds = common_seeds(results, method, reference)
    if not seeds:
        return None
    ours, theirs = results.finished(method), results.finished(reference)
    by_seed = np.array([ours[seed][-1].test_accuracy - theirs[seed][-1].test_accuracy for seed in seeds])
    return estimate(by_seed, *by_test_set(results, method, reference, seeds))


def common_seeds(results: Results, method: str, reference: str) -> list[int]:
    """The seeds that both methods have finished."""
    theirs = results.finished(reference)
    return [seed for seed in results.finished(method) if seed in theirs]


def by_test_set(results: Results, method: str, reference: str, seeds: Sequence[int]) -> list[NDArray[np.float64]]:
    """For each test set, its seeds' differences on its examples; nothing unless all scores are known and pair up."""
    groups: dict[str, list[NDArray[np.float64]]] = {}
    for seed in seeds:
        ours, theirs = (results.runs[name, seed] for name in (method, reference))
        if ours.scores is None or theirs.scores is None or ours.test_set != theirs.test_set:
            return []
        if ours.scores.shape != theirs.scores.shape:
            return []
        groups.setdefault(ours.test_set, []).append((ours.scores.double() - theirs.scores.double()).numpy())
    if any(len({scores.shape for scores in group}) > 1 for group in groups.values()):
        return []
    return [np.stack(group) for group in groups.values()]


def multiple(ratio: float, low: float = math.nan, high: float = math.nan) -> str:
    """``"0.28x"``, ``"0.28x (0.25 to 0.31)"``: a ratio of steps, and its interval if there is one; a dash for NaN."""
    if math.isnan(ratio):
        return "–"
    between = f" ({low:.2f} to {high:.2f})" if low < high < math.inf else ""
    return ("<0.01x" if ratio < 0.005 else f"{ratio:.2f}x") + between


def compare(
    results: Results, method: str, reference: str, found: Estimate | None, *, margin: float, error: float, tried: int
) -> Comparison:
    """Compare one method with the reference.

    Args:
        results: The measurements.
        method: The method.
        reference: The one that it is compared with.
        found: Their difference, from `estimate_difference`.
        margin: The largest acceptable loss, in the metric's unit.
        error: The accepted chance of any false claim.
        tried: How many methods are judged together, among which the error is split; 0 if nothing can be claimed of this
            one.

    Returns:
        The difference with its interval, what it costs, and how it is to be read.
    """
    judged, level = tried > 0, 1 - error / max(1, tried)
    ours, theirs = results.finished(method), results.finished(reference)
    seeds = common_seeds(results, method, reference)
    ratio, fewest, most = total_steps(results, method, reference, level)
    worst_allowed = -margin * results.metric.sign
    low, high = found.interval(level) if found and judged else (-math.inf, math.inf)
    worst, best = (low, high) if results.metric.higher_is_better else (-high, -low)
    if results.diverged(method):
        decision = "diverged"
    elif not judged:
        decision = "too few seeds"
    elif worst > 0:
        decision = "better"
    elif worst >= -margin:
        decision = "no worse"
    elif best < -margin:
        decision = "worse"
    else:
        decision = "unclear"
    return Comparison(
        method=method,
        seeds=len(seeds),
        difference=found.difference if found else math.nan,
        low=low,
        high=high,
        p_value=min(1.0, tried * found.p_value(worst_allowed)) if found and judged else math.nan,
        steps_ratio=_ratio(*(np.array([rows[seed][-1].steps for seed in seeds]) for rows in (ours, theirs))),
        total_steps_ratio=ratio,
        total_steps_low=fewest,
        total_steps_high=most,
        seeds_needed=found.seeds_needed(worst_allowed, level)
        if found and judged and math.isfinite(low) and results.metric.sign * found.difference > -margin
        else None,
        admitting_margin=max(0.0, -worst),
        decision=decision,
    )


def total_steps(results: Results, method: str, reference: str, level: float = 1 - ERROR) -> tuple[float, float, float]:
    """A method's steps of all stages over another's, with the interval of the ratio.

    Returns:
        The ratio of the sums over seeds, and its interval's ends; NaN where steps are not counted, 0 and infinity for
        the ends where nothing can be inferred.
    """
    seeds = common_seeds(results, method, reference)
    ours, theirs = (
        np.array([sum(row.steps for row in results.finished(name)[seed]) for seed in seeds])
        for name in (method, reference)
    )
    if not seeds or not (ours.all() and theirs.all()):
        return _ratio(ours, theirs), math.nan, math.nan
    return _ratio(ours, theirs), *ratio_interval(ours, theirs, level)


def _ratio(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> float:
    return float(ours.sum() / theirs.sum()) if ours.sum() and theirs.sum() else math.nan
