"""The figures of docs/evidence/, each made of what `kept_grids` keeps of one grid."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kept_grids import best_label, between, kept, labels_by_rate, short
from warmstart.evidence.paired import Estimate
from warmstart.evidence.table import Row
from warmstart.reporting import figures
from warmstart.reporting.figures import Interval, Series


def rates_figure(grid: str) -> Figure:
    """Last accuracy by rate, a line a method."""
    results, _ = kept(grid)
    series = []
    for method, of_one in labels_by_rate(results).items():
        found = [(rate, [100 * a for a in Row.of(results, label).last_metric]) for rate, label in of_one.items()]
        found = [(rate, values) for rate, values in found if values]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in found]
        means = [statistics.fmean(values) for _, values in found]
        series.append(Series(short(method), [rate for rate, _ in found], means, spread))
    figure = figures.cost_lines(series, x_label="learning rate", y_label="last accuracy, %")
    (axes,) = figure.axes
    every = sorted({rate for line in series for rate in line.x})
    axes.set_xscale("log")
    axes.set_xlim(every[0] / 1.2, every[-1] * 1.2)
    axes.set_xticks(every, [f"{rate:g}" for rate in every], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    return figure


def stages_figure(grid: str) -> Figure:
    """Accuracy by stage, each method at its best rate."""
    results, _ = kept(grid)
    series = []
    for method, of_one in labels_by_rate(results).items():
        runs = results.finished(best_label(results, of_one)).values()
        by_stage = [[100 * run[stage].test_accuracy for run in runs] for stage in range(results.stages)]
        means, spread = ([function(values) for values in by_stage] for function in (statistics.fmean, statistics.stdev))
        series.append(Series(short(method), [stage + 1 for stage in range(results.stages)], means, spread))
    return figures.lines(series, x_label="stage", y_label="accuracy, %")


def against_cold(grid: str) -> Figure:
    """Each method's difference from cold with its interval."""
    results, facts = kept(grid)
    shown = [(short(method), found) for method in results.methods if (found := between(facts, method, "cold"))]
    rows = [Interval(name, *(100 * value for value in _around(found))) for name, found in shown]
    return figures.intervals(rows, x_label="last accuracy minus cold's, points")


def _around(found: Estimate) -> tuple[float, float, float]:
    low, high = found.interval()
    return low, found.difference, high


FIGURES: Mapping[str, Callable[[str], Figure]] = {
    "rates": rates_figure,
    "stages": stages_figure,
    "against-cold": against_cold,
}
