"""The statistics of paired runs: a mean difference over seeds and test examples, and its interval.

A method's last-stage metric x(s, i), for seed s and test example i, is compared with the reference's on the
same seed and the same example. The difference is modelled as

    x(s, i) = difference + seed(s) + example(i) + both(s, i),

where the seeds stand for all orders of data and initialisations that might have been drawn, and the test
examples for all that might have been collected. Seeds come in groups, each with T test examples of its own: one
group where all seeds are tested on the same, n groups of one where each has its own, five where a fifth of the
data rotates. The mean over a seed's T examples, y(s), then has the variance

    V = var(seed) + var(example) / T + var(both) / T,

and two seeds of a group the covariance var(example) / T, since they share their examples; seeds of two groups have
none. Let C be the mean covariance over all ordered pairs of different seeds. For the mean of n seeds

    variance of the mean = V / n + C (n - 1) / n,
    expected sample variance of y = (n V - n (variance of the mean)) / (n - 1) = V - C,

so that the sample variance over n, that of the paired t statistic, is too small by exactly C:

    variance of the mean = (expected sample variance of y) / n + C.

- C is var(example) / T in each group, weighted by the group's number of pairs. A bootstrap over the examples of a group
  of m seeds gives var(example) / T + var(both) / (m T): for a mean it needs no resampling, as its exact value is the
  variance of the examples' mean differences over T. The second term, on a small test set the larger one, is taken off:
  it is estimated from the residuals of the model.
- With one group this is var(seed) / n + var(example) / T + var(both) / (n T); with n groups of one, which have no
  pairs, it is the paired t statistic's own variance.
- The interval's half width is sqrt(a^2 + b^2) with a = t sqrt(sample variance / n) and b = t sqrt(C), each t with the
  degrees of freedom of its own part (Howe, JASA 1974). Welch and Satterthwaite's single t is not taken: where a few
  seeds happen to agree it calls their spread known, and the interval narrows by both of its factors. C has T - 1
  degrees of freedom from each group with pairs. The sample variance has n - 1 with one group and with n; in between,
  where a group's common part counts once, those of a quadratic form in normal variables, tr(A)^2 / tr(A^2), where A is
  the covariance matrix of the y(s), centred.
- Single answers are a floor. V - C is at least what they alone make, var(both) / T with one group, which n T answers
  know far better than n seeds know their spread. So a is never less than t sqrt(that / n), with the answers' degrees of
  freedom: seeds that happen to agree do not claim to know more than their answers. Where seeds differ by nothing else,
  95 % intervals hold in 97 to 99 % of experiments, a tenth wider in the mean; where they do, it changes little.

Test sets that overlap in part are taken for different ones, whose examples differ. Without per-example scores only the
sample variance is known: the interval then holds for these very test sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

ERROR = 0.05
"""The accepted chance of a false claim: intervals are at 95 %, unless several looks share it."""
LEAST_P = 1e-300
"""No p-value is given as less."""
MOST_SEEDS = 200
"""More are not advised: with so many, what is left is that the test examples are few."""


@dataclass(frozen=True)
class Estimate:
    """An estimated difference with its uncertainty."""

    difference: float
    of_seeds: float
    """The part of the variance that is the seeds' sample variance over their number."""
    seed_freedom: float
    """Its degrees of freedom."""
    seeds: int
    of_answers: float = 0.0
    """What single answers alone make of that part: in truth it is no less."""
    answer_freedom: float = math.inf
    of_examples: float = 0.0
    """The part of the variance that shared test examples make, C; with one test set more seeds do not narrow it."""
    example_freedom: float = math.inf
    test_sets: int = 1

    def seeds_needed(self, excluded: float, level: float) -> int | None:
        """The fewest seeds with which the interval would not hold a value, if they go on as these did.

        Where seeds share test sets, those to come are taken to share the same ones, evenly; where none do, to bring
        their own. So while a rotation has not come round, this is the least that it may take.

        Args:
            excluded: The value.
            level: The interval's.

        Returns:
            At least the number there is; None if more than `MOST_SEEDS` would be needed, as where the test examples
            alone leave the value possible.
        """
        distance = abs(self.difference - excluded)
        seeds = range(max(2, self.seeds), MOST_SEEDS + 1)
        return next((count for count in seeds if distance > self.foreseen(count)._half(1 - level)), None)

    def foreseen(self, seeds: int) -> Estimate:
        """The estimate with so many seeds, if they go on as these did."""
        of_one, answers_of_one = (self.seeds * part + self.of_examples for part in (self.of_seeds, self.of_answers))
        now, then = (_spread(count, self.test_sets) for count in (self.seeds, seeds))
        of_pair = self.of_examples / _share_of_pairs(now) if self.of_examples else 0.0
        of_examples = of_pair * _share_of_pairs(then)
        return replace(
            self,
            seeds=seeds,
            of_seeds=max(0.0, of_one - of_examples) / seeds,
            seed_freedom=_freedom(then, of_one, of_pair),
            of_answers=max(0.0, answers_of_one - of_examples) / seeds,
            answer_freedom=self.answer_freedom * seeds / self.seeds,
            of_examples=of_examples,
        )

    def interval(self, level: float = 1 - ERROR) -> tuple[float, float]:
        """The two-sided confidence interval at ``level``; infinite without any spread: nothing can be inferred."""
        half = self._half(1 - level)
        return self.difference - half, self.difference + half

    def p_value(self, at: float = 0.0) -> float:
        """The two-sided p-value of the hypothesis that the true difference is ``at``.

        Returns:
            The error of the widest interval that leaves ``at`` out, so that the two never disagree; 1 without spread.
        """
        distance = abs(self.difference - at)
        least, most = math.log(LEAST_P), 0.0
        if not distance > self._half(1.0):
            return 1.0
        if distance > self._half(LEAST_P):
            return LEAST_P
        for _ in range(60):  # halving, down to the precision of floats
            middle = (least + most) / 2
            least, most = (least, middle) if distance > self._half(math.exp(middle)) else (middle, most)
        return math.exp(most)

    def _half(self, error: float) -> float:
        """Half of the width of the interval that misses with this chance."""
        if not self.of_seeds + self.of_answers + self.of_examples > 0:
            return math.inf
        from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take a second to import

        def half(part: float, freedom: float) -> float:
            return -float(stdtrit(freedom, error / 2)) * math.sqrt(part) if part > 0 else 0.0

        of_seeds = max(half(self.of_seeds, self.seed_freedom), half(self.of_answers, self.answer_freedom))
        return math.hypot(of_seeds, half(self.of_examples, self.example_freedom))


def estimate(by_seed: NDArray[np.float64], *by_example: NDArray[np.float64]) -> Estimate:
    """Estimate a mean difference from paired runs; the module's docstring derives it.

    Args:
        by_seed: Each seed's difference, shape (n,).
        by_example: For each test set, if scores are known, the differences on its T examples of the m seeds that were
            tested on it, shape (m, T); the seeds of all sets are n together.

    Returns:
        The mean difference with the parts of its variance and their degrees of freedom.
    """
    n = len(by_seed)
    mean = float(by_seed.mean())
    if n < 2:
        return Estimate(mean, 0.0, 0.0, n)
    # Seeds that agree but for the rounding of floats show no spread.
    agree = float(np.ptp(by_seed)) <= 1e-6 * float(np.abs(by_seed).max())
    of_seeds = 0.0 if agree else float(by_seed.var(ddof=1)) / n
    if not by_example or any(scores.shape[1] < 2 for scores in by_example):
        return Estimate(mean, of_seeds, n - 1, n)
    sizes = [len(scores) for scores in by_example]
    shared = [scores for scores in by_example if len(scores) > 1]
    pairs = np.array([len(scores) * (len(scores) - 1) for scores in shared]) / (n * (n - 1))
    covariance = float(pairs @ np.array([_covariance(scores) for scores in shared]))
    of_examples = max(0.0, covariance)
    # Without var(seed), V is what the differences of single examples vary by.
    answers_of_one = sum(float(scores.var(axis=1, ddof=1).sum()) / scores.shape[1] for scores in by_example) / n
    of_answers = max(0.0, answers_of_one - covariance) / n
    answer_freedom = sum(max(1, len(scores) - 1) * (scores.shape[1] - 1) for scores in by_example)
    if not shared:
        return Estimate(mean, of_seeds, n - 1, n, of_answers, answer_freedom, test_sets=len(sizes))
    of_pair = of_examples / _share_of_pairs(sizes)
    lengths = np.array([scores.shape[1] for scores in shared])
    weights = pairs / lengths
    example_freedom = float(weights.sum()) ** 2 / float((weights**2 / (lengths - 1)).sum())
    seed_freedom = _freedom(sizes, n * of_seeds + of_examples, of_pair)
    return Estimate(
        mean, of_seeds, seed_freedom, n, of_answers, answer_freedom, of_examples, example_freedom, len(sizes)
    )


def ratio_interval(ours: NDArray[Any], theirs: NDArray[Any], level: float) -> tuple[float, float]:
    """The interval of a ratio of two means of numbers above 0, paired over seeds (Fieller 1954).

    It holds the ratios R for which the paired t statistic of ours - R theirs is not significant.

    Args:
        ours: Each seed's number, shape (n,).
        theirs: The other's.
        level: The interval's.

    Returns:
        Its ends; 0 and infinity where nothing can be inferred.
    """
    n = len(ours)
    if n < 2:
        return 0.0, math.inf
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take a second to import

    a, b = float(ours.mean()), float(theirs.mean())
    if np.ptp(ours / theirs) == 0:  # fixed, and not by the seeds
        return a / b, a / b
    t_squared = float(stdtrit(n - 1, (1 + level) / 2)) ** 2
    (of_ours, of_both), (_, of_theirs) = t_squared / n * np.cov(ours, theirs)
    # (a - R b)^2 = t^2 (var ours - 2 R cov + R^2 var theirs) / n
    square, middle, rest = b**2 - of_theirs, a * b - of_both, a**2 - of_ours
    if square <= 0:
        return 0.0, math.inf
    half = math.sqrt(max(0.0, middle**2 - square * rest))
    return max(0.0, float(middle - half) / float(square)), float(middle + half) / float(square)


def two_networks(gained: int, lost: int, size: int, error: float) -> tuple[float, float] | None:
    """The interval of what two networks, and not two methods, differ by in accuracy on the same test examples.

    Tango's score interval of a difference of paired proportions (Statistics in Medicine 1998), which is widened to 0
    where McNemar's exact test does not reject at ``error``: so it lies above 0 only where that does too.

    Args:
        gained: Examples that the second network alone has right.
        lost: Those that the first one alone has right.
        size: All test examples.
        error: The chance that the interval misses.

    Returns:
        Its ends, shares of ``size``; None where no example tells.
    """
    if gained + lost == 0:
        return None
    from scipy.special import bdtr, ndtri

    z = float(ndtri(1 - error / 2))

    def end(sign: int) -> float:
        inside, outside = (gained - lost) / size, float(sign)
        for _ in range(60):  # halving, down to the precision of floats
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(_score(gained, lost, size, middle)) <= z else (inside, middle)
        return inside

    exact = float(bdtr(min(gained, lost), gained + lost, 0.5)) <= error / 2
    low, high = end(-1), end(1)
    return (low, high) if exact else (min(low, 0.0), max(high, 0.0))


def _score(gained: int, lost: int, size: int, difference: float) -> float:
    """Tango's statistic of the hypothesis that the accuracies differ by this much."""
    both = difference * (1 - difference)
    b = (2 * size - gained + lost) * difference - gained - lost
    q = (math.sqrt(b**2 + 8 * size * lost * both) - b) / (4 * size)  # of lost, the most likely share under it
    variance = size * (2 * q + both)
    distance = gained - lost - size * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def _covariance(scores: NDArray[np.float64]) -> float:
    """Of two seeds' means over a test set, var(example) / T, from the differences of at least two seeds."""
    seeds, size = scores.shape
    examples = scores.mean(axis=0)
    residual = scores - scores.mean(axis=1, keepdims=True) - examples + scores.mean()
    of_both = (residual**2).sum() / ((seeds - 1) * (size - 1)) / (seeds * size)
    return float(examples.var(ddof=1) / size - of_both)


def _spread(seeds: int, test_sets: int) -> list[int]:
    """How many seeds each test set has, if they are spread evenly."""
    each, more = divmod(seeds, test_sets)
    return [each + (place < more) for place in range(test_sets)]


def _share_of_pairs(sizes: Sequence[int]) -> float:
    """The share of pairs of different seeds that share a test set."""
    seeds = sum(sizes)
    return sum(size * (size - 1) for size in sizes) / (seeds * (seeds - 1))


def _freedom(sizes: Sequence[int], of_one: float, of_pair: float) -> float:
    """Degrees of freedom of the sample variance over seeds with this variance, and this covariance in a test set."""
    if of_pair == 0 or len(sizes) == 1:
        return sum(sizes) - 1
    test_set = np.repeat(np.arange(len(sizes)), sizes)
    covariance = np.where(test_set == test_set[:, None], of_pair, 0.0)
    np.fill_diagonal(covariance, max(of_one, of_pair))
    centred = covariance - covariance.mean(axis=0)
    return float(np.trace(centred)) ** 2 / float((centred * centred.T).sum())


def level_text(error: float) -> str:
    """``"95 %"``: the level of intervals with this chance of a false claim; as many digits as keep it from 100."""
    texts = (f"{100 * (1 - error):.{digits}g}" for digits in range(3, 17))
    return f"{next(text for text in texts if text != '100')} %"
