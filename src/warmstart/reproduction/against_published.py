"""Our figures beside the published ones: cells of the table, and whether the methods come in the same order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean, stdev

from warmstart.evidence.table import Row, mean_std
from warmstart.reproduction.published import MeanStd, PublishedRow
from warmstart.runs.results import Results

QUANTITIES: Mapping[str, str] = {
    "last_accuracy": "last accuracy %",
    "mean_accuracy": "mean accuracy %",
    "last_steps": "last steps",
    "mean_steps": "mean steps",
}
"""The paper's four columns; last: the last stage, mean: over all stages of a run."""


@dataclass(frozen=True)
class Difference:
    """A difference of two means with the half of its 95 % interval; NaN where one has a single seed."""

    mean: float
    half: float

    @classmethod
    def of_runs(cls, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
        """Ours minus theirs, paired over the seeds where there are as many."""
        if len(ours) != len(theirs):
            return cls.of_means(*((fmean(one), _std(one), len(one)) for one in (ours, theirs)))
        pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
        return cls.of_means((fmean(pairs), _std(pairs), len(pairs)), (0.0, 0.0, len(pairs)))

    @classmethod
    def of_means(cls, ours: tuple[float, float, int], theirs: tuple[float, float, int]) -> Difference:
        """Ours minus theirs, each a mean, the sample's standard deviation and the number of seeds (Welch 1947)."""
        from scipy.special import stdtrit  # the quantile of Student's t

        difference = ours[0] - theirs[0]
        if min(ours[2], theirs[2]) < 2:
            return cls(difference, math.nan)
        parts = [std**2 / seeds for _, std, seeds in (ours, theirs)]
        if sum(parts) == 0:
            return cls(difference, 0.0)
        freedom = sum(parts) ** 2 / sum(part**2 / (one[2] - 1) for part, one in zip(parts, (ours, theirs), strict=True))
        return cls(difference, float(stdtrit(freedom, 0.975)) * math.sqrt(sum(parts)))

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half  # not where it is NaN

    def text(self, form: str) -> str:
        """Such as ``-0.60 (-1.30 to +0.10)``; the difference alone where there is no interval."""
        mean, low, high = (f"{value:+{form}}" for value in (self.mean, self.mean - self.half, self.mean + self.half))
        return mean if math.isnan(self.half) else f"{mean} ({low} to {high})"


@dataclass(frozen=True)
class FigurePair:
    """One of the paper's figures and ours for it, one number a seed."""

    ours: Sequence[float]
    published: MeanStd | None
    form: str

    def cells(self) -> tuple[str, str, str]:
        """Ours, the published figure, and their difference with its interval."""
        if self.published is None:
            return mean_std(self.ours, self.form), "–", "–"
        theirs = f"{self.published.mean:{self.form}} ({self.published.std:{self.form}})"
        return mean_std(self.ours, self.form), theirs, self._difference(self.published)

    def _difference(self, published: MeanStd) -> str:
        if not self.ours:
            return "–"
        ours = (fmean(self.ours), _std(self.ours), len(self.ours))
        return Difference.of_means(ours, _mean_std_seeds(published)).text(self.form)


def paired_figures(results: Results, method: str, row: PublishedRow | None) -> dict[str, FigurePair]:
    """One method's four figures by name, from complete runs only; ``row`` holds the paper's, if it has the method."""
    measured = Row.of(results, method)
    ours = {
        "last_accuracy": [100 * accuracy for accuracy in measured.last_metric],
        "mean_accuracy": [100 * accuracy for accuracy in measured.mean_metric],
        "last_steps": measured.last_steps,
        "mean_steps": measured.mean_steps,
    }
    return {
        name: FigurePair(values, None if row is None else getattr(row, name), ".2f" if "accuracy" in name else ".0f")
        for name, values in ours.items()
    }


def orders(rows: Mapping[str, Mapping[str, FigurePair]]) -> list[str]:
    """Compare the order of the methods with the paper's, in each quantity.

    Two methods are in an order only if the 95 % interval of their difference leaves out 0: ours paired over seeds, the
    paper's, whose single runs are not known, by Welch's.

    Returns:
        One sentence for each quantity in which at least two of the paper's methods have complete runs.
    """
    sentences = []
    for name, label in QUANTITIES.items():
        ours = {method: row[name].ours for method, row in rows.items() if row[name].ours}
        theirs = {method: one for method, row in rows.items() if (one := row[name].published) is not None}
        known = sorted((method for method in ours if method in theirs), key=lambda method: -fmean(ours[method]))
        if len(known) < 2:
            continue
        equal = [fmean(ours[a]) == fmean(ours[b]) for a, b in pairwise(known)]
        order = known[0] + "".join(f" {'=' if same else '>'} {b}" for same, b in zip(equal, known[1:], strict=True))
        sentences.append(f"Order by {label.removesuffix(' %')}: {order} ({_agreement(known, ours, theirs)}).")
    return sentences


def _agreement(known: Sequence[str], ours: Mapping[str, Sequence[float]], theirs: Mapping[str, MeanStd]) -> str:
    """How far our order agrees with the paper's; ``known`` begins with the largest."""
    swapped: list[str] = []
    unclear: dict[str, list[str]] = {"here": [], "in the paper": []}
    for a, b in combinations(known, 2):
        published = Difference.of_means(_mean_std_seeds(theirs[a]), _mean_std_seeds(theirs[b]))
        for where, difference in (("here", Difference.of_runs(ours[a], ours[b])), ("in the paper", published)):
            if not difference.shown:
                unclear[where].append(f"{a} and {b}")
                break
        else:
            if published.mean < 0:
                swapped.append(f"{a} and {b}")
    pairs = math.comb(len(known), 2)
    if max(len(ours[method]) for method in known) < 2:
        return "with one seed no order is shown"
    if len(unclear["here"]) == pairs > 1:
        return "all too close here"
    findings = [f"too close {where}: {', '.join(close)}" for where, close in unclear.items() if close]
    if swapped:
        findings.insert(0, f"published the other way round: {', '.join(swapped)}")
    elif sum(map(len, unclear.values())) < pairs:
        findings.insert(0, "as published")
    return "; ".join(findings)


def _mean_std_seeds(published: MeanStd) -> tuple[float, float, int]:
    return published.mean, published.sample_std, published.seeds


def _std(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
