"""The figures of a grid: the metric by stage and by cost, and the steps of each stage."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from warmstart.reporting import figures
from warmstart.runs.results import Results
from warmstart.runs.stage_result import StageResult


def accuracy_figure(results: Results) -> Figure:
    """The metric by stage, with a band of one standard deviation over seeds."""
    return figures.lines(
        [figures.Series(method, range(1, len(mean) + 1), mean, std) for method, _, mean, std in _trajectories(results)],
        x_label="stage",
        y_label=results.metric.axis,
    )


def cost_figure(results: Results) -> Figure:
    """The metric against the steps so far, one point a stage."""
    return figures.cost_lines(
        [figures.Series(method, steps, mean) for method, steps, mean, _ in _trajectories(results)],
        x_label="steps so far (what you pay)",
        y_label=results.metric.axis,
    )


def steps_figure(results: Results) -> Figure:
    """The steps of each stage, with a band of one std over seeds; methods look as in `accuracy_figure`."""
    series = []
    for method, so_far, *_ in _trajectories(results):
        runs = list(results.finished(method).values()) or _unfinished(results, method)
        steps = np.array([[row.steps for row in run[: len(so_far)]] for run in runs], dtype=float)
        std = steps.std(axis=0, ddof=1).tolist() if len(runs) > 1 else None
        series.append(figures.Series(method, range(1, len(so_far) + 1), steps.mean(axis=0).tolist(), std))
    return figures.lines(series, x_label="stage", y_label="steps of the stage")


def _trajectories(results: Results) -> list[tuple[str, list[float], list[float], list[float] | None]]:
    """By method its name and, at each stage, mean steps so far, mean metric and the metric's std; cold comes first."""
    # The others keep the grid's order: a method's colour follows from its place, and must not change with its rank.
    found = []
    for method in results.methods:
        runs = list(results.finished(method).values()) or _unfinished(results, method)
        stages = min((len(run) for run in runs), default=0)
        if not stages:
            continue
        metric = results.metric.scale * np.array([[row.test_accuracy for row in run[:stages]] for run in runs])
        steps = np.cumsum([[row.steps for row in run[:stages]] for run in runs], axis=1).mean(axis=0)
        std = metric.std(axis=0, ddof=1).tolist() if len(runs) > 1 else None
        found.append((method, steps.tolist(), metric.mean(axis=0).tolist(), std))
    return sorted(found, key=lambda line: line[0] != "cold")


def _unfinished(results: Results, method: str) -> list[list[StageResult]]:
    diverged = results.diverged(method)
    runs = [results.select(method, seed=seed) for seed in results.seeds if seed not in diverged]
    return [run for run in runs if run]
