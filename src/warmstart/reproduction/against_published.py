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
class FigurePair:
    """One of the paper's figures and ours for it, one number a seed."""

    ours: Sequence[float]
    published: MeanStd | None
    form: str

    def cells(self) -> tuple[str, str, str]:
        """Ours, the published figure, and their difference in units of both standard deviations."""
        theirs = (
            "–" if self.published is None else f"{self.published.mean:{self.form}} ({self.published.std:{self.form}})"
        )
        return mean_std(self.ours, self.form), theirs, self._difference()

    def _difference(self) -> str:
        if self.published is None or not self.ours:
            return "–"
        difference = fmean(self.ours) - self.published.mean
        if len(self.ours) < 2:
            return f"{difference:+{self.form}}"
        both = math.hypot(stdev(self.ours), self.published.std)
        if both == 0:
            return "0.0 σ" if difference == 0 else f"{difference:+{self.form}}"
        return f"{difference / both:+.1f} σ"


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

    Two methods count as the other way round only if their difference exceeds the standard deviation of a difference,
    both here and in the paper.

    Returns:
        One sentence for each quantity in which at least two of the paper's methods have complete runs.
    """
    sentences = []
    for name, label in QUANTITIES.items():
        ours = {method: _summary(row[name].ours) for method, row in rows.items() if row[name].ours}
        theirs = {method: one for method, row in rows.items() if (one := row[name].published) is not None}
        known = sorted((method for method in ours if method in theirs), key=lambda method: -ours[method].mean)
        if len(known) < 2:
            continue
        order = known[0] + "".join(f" {'>' if ours[a].mean > ours[b].mean else '='} {b}" for a, b in pairwise(known))
        sentences.append(f"Order by {label.removesuffix(' %')}: {order} ({_agreement(known, ours, theirs)}).")
    return sentences


def _agreement(known: Sequence[str], ours: Mapping[str, MeanStd], theirs: Mapping[str, MeanStd]) -> str:
    """How far our order agrees with the paper's; ``known`` begins with the largest."""
    swapped: list[str] = []
    unclear: dict[str, list[str]] = {"here": [], "in the paper": []}
    for a, b in combinations(known, 2):
        for where, figures in (("here", ours), ("in the paper", theirs)):
            if abs(figures[a].mean - figures[b].mean) <= math.hypot(figures[a].std, figures[b].std):
                unclear[where].append(f"{a} and {b}")
                break
        else:
            if theirs[a].mean < theirs[b].mean:
                swapped.append(f"{a} and {b}")
    pairs = math.comb(len(known), 2)
    if len(unclear["here"]) == pairs > 1:
        return "all too close here"
    findings = [f"too close {where}: {', '.join(close)}" for where, close in unclear.items() if close]
    if swapped:
        findings.insert(0, f"published the other way round: {', '.join(swapped)}")
    elif sum(map(len, unclear.values())) < pairs:
        findings.insert(0, "as published")
    return "; ".join(findings)


def _summary(values: Sequence[float]) -> MeanStd:
    return MeanStd(fmean(values), stdev(values) if len(values) > 1 else 0.0)
