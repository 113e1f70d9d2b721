"""The statistics of paired runs: a mean difference over seeds and test examples, its interval, Holm's levels.

A method's last-stage metric x(s, i), for seed s and test example i, is compared with the reference's on the
same seed and the same example. The difference is modelled as

    x(s, i) = difference + seed(s) + example(i) + both(s, i),

where the seeds stand for all orders of data and initialisations that might have been drawn, and the test
examples for all that might have been collected. The mean over n seeds and T examples then has the variance

    var(seed) / n  +  var(example) / T  +  var(both) / (n T).

- The differences of whole runs vary by var(seed) + var(both) / T from seed to seed. Their variance over n, that of
  the paired t statistic, is the first and the third term.
- The bootstrap over test examples gives the second and the third: for a mean it needs no resampling, as its exact
  value is the variance of the examples' mean differences over T.
- Added as they are, the two would count the third term twice, and on a small test set it is the largest. So it is
  taken off once, estimated from the residuals of the model.
- The degrees of freedom are Welch and Satterthwaite's, for n - 1 and T - 1.

Without per-example scores only the first part is known: the interval then holds for this very test set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ERROR = 0.05
"""The accepted chance of a false claim: intervals are at 95 %."""
MOST_SEEDS = 200
"""More are not advised: with so many, what is left is that the test examples are few."""


@dataclass(frozen=True)
class Estimate:
    """An estimated difference with its uncertainty."""

    difference: float
    variance: float
    """Of the difference; 0 if the data show no spread at all, from which nothing can be inferred."""
    freedom: float
    """Degrees of freedom of the t distribution."""
    seeds: int
    of_examples: float = 0.0
    """The part of the variance that the test examples make, which more seeds do not narrow."""
    example_freedom: float = math.inf

    def seeds_needed(self, excluded: float, level: float) -> int | None:
        """The fewest seeds with which the interval would not hold a value, if they go on as these did.

        Args:
            excluded: The value.
            level: The interval's.

        Returns:
            At least the number there is; None if more than `MOST_SEEDS` would be needed, as where the test examples
            alone leave the value possible.
        """
        from scipy.special import stdtrit

        of_one = (self.variance - self.of_examples) * self.seeds
        for seeds in range(max(2, self.seeds), MOST_SEEDS + 1):
            variance = of_one / seeds + self.of_examples
            parts = (of_one / seeds) ** 2 / (seeds - 1) + self.of_examples**2 / self.example_freedom
            freedom = variance**2 / parts if parts > 0 else math.inf
            if abs(self.difference - excluded) > float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance):
                return seeds
        return None

    def interval(self, level: float = 1 - ERROR) -> tuple[float, float]:
        """The two-sided confidence interval at ``level``; infinite if ``variance`` is 0."""
        if self.variance == 0:
            return -math.inf, math.inf
        from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take a second to import

        half = float(stdtrit(self.freedom, (1 + level) / 2)) * math.sqrt(self.variance)
        return self.difference - half, self.difference + half

    def p_value(self, at: float = 0.0) -> float:
        """The two-sided p-value of the hypothesis that the true difference is ``at``; 1 if ``variance`` is 0."""
        if self.variance == 0:
            return 1.0
        from scipy.special import stdtr  # the distribution function of Student's t

        return float(2 * stdtr(self.freedom, -abs(self.difference - at) / math.sqrt(self.variance)))


def estimate(by_seed: NDArray[np.float64], by_example: NDArray[np.float64] | None = None) -> Estimate:
    """Estimate a mean difference from paired runs; the module's docstring derives it.

    Args:
        by_seed: Each seed's difference, shape (n,).
        by_example: Each seed's difference on each test example, shape (n, T), if known.

    Returns:
        The mean difference with its variance and degrees of freedom.
    """
    n = len(by_seed)
    mean = float(by_seed.mean())
    if n < 2:
        return Estimate(mean, 0.0, 0.0, n)
    # Seeds that agree but for the rounding of floats show no spread.
    agree = float(np.ptp(by_seed)) <= 1e-6 * float(np.abs(by_seed).max())
    of_seeds = 0.0 if agree else float(by_seed.var(ddof=1)) / n
    if by_example is None or by_example.shape[1] < 2:
        return Estimate(mean, of_seeds, n - 1, n)
    size = by_example.shape[1]
    examples = by_example.mean(axis=0)
    residual = by_example - by_example.mean(axis=1, keepdims=True) - examples + by_example.mean()
    of_both = float((residual**2).sum()) / ((n - 1) * (size - 1)) / (n * size)
    of_examples = max(0.0, float(examples.var(ddof=1)) / size - of_both)
    # Accuracies are counts: a few seeds can agree to the last example. Their spread is then not seen, but not zero.
    of_seeds = of_seeds or of_both
    variance = of_seeds + of_examples
    if variance == 0:
        return Estimate(mean, 0.0, n - 1, n)
    freedom = variance**2 / (of_seeds**2 / (n - 1) + of_examples**2 / (size - 1))
    return Estimate(mean, variance, freedom, n, of_examples, size - 1)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: at most ``ERROR`` where his procedure rejects."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """The confidence levels that Holm's step-down procedure gives to several hypotheses.

    The smallest p-value is tested at ERROR / k, the next at ERROR / (k - 1), and so on until one is not rejected;
    that one and all after it keep the level reached. An interval at this level excludes the hypothesis exactly where
    Holm's procedure rejects it.

    Returns:
        The levels in the order given, e.g. 0.9833 for the first of three.
    """
    levels = [0.0] * len(p_values)
    left = len(p_values)
    for index in sorted(range(len(p_values)), key=p_values.__getitem__):
        levels[index] = 1 - ERROR / left
        if p_values[index] <= ERROR / left:
            left -= 1
    return levels
