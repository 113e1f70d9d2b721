"""What a report says beyond the verdict: direction or shrinking alone, DASH's scales, batch-norm statistics."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from warmstart.evidence import table
from warmstart.evidence.comparisons import ENOUGH_SEEDS, estimate_difference
from warmstart.evidence.paired import ERROR, level_text
from warmstart.reporting import figures, html
from warmstart.reporting.html import Html
from warmstart.runs.results import Results

SETTLED_UPDATES = 22
"""After n updates 0.9^n of batch norm's old running statistics is left (momentum 0.1): below 10 % from 22 on."""


def diagnosis(results: Results, section: Callable[..., Html], error: float = ERROR) -> list[Html]:
    """The diagnosis as sections of a report, each made by ``section(heading, *blocks)``; ``error`` as for `judge`."""
    return [
        section("How much is direction, how much is shrinking?", *direction_or_shrinking(results, error)),
        section("DASH's scales by layer", *scales_by_layer(results)),
        section("Batch-norm statistics", *recalibrated(results)),
    ]


def direction_or_shrinking(results: Results, error: float = ERROR) -> list[Html]:
    """Compare DASH with uniform shrinking, or say how to add that control; nothing in a grid without DASH."""
    dashes = [method for method in results.methods if _base(method) == "dash"]
    controls = [method for method in results.methods if _is_uniform_shrinking(method)]
    if not dashes:
        return []
    if not controls:
        return [
            html.paragraph(
                "Whatever shrinks the weights of a network with normalisation raises its effective learning rate. "
                "How much of DASH's gain is its direction can only be told against shrinking all weights alike, "
                "which is not in this grid. To add it, run the same command with "
                "`shrink-perturb[noise_std=0]` among the methods; what is there already is kept."
            )
        ]
    why = (
        "The control shrinks all weights by the same factor. With normalisation this leaves the network's predictions "
        "almost unchanged and raises its effective learning rate: what DASH has beyond it is its direction's share."
    )
    return [
        *(html.paragraph(_against_control(results, dash, controls[0], error / len(dashes))) for dash in dashes),
        html.paragraph(f"{why} This interval is by itself: those of the verdict do not allow for it."),
    ]


def _against_control(results: Results, dash: str, control: str, error: float) -> str:
    found = estimate_difference(results, dash, control)
    if found is None or found.seeds < ENOUGH_SEEDS:
        return f"{dash} and {control} share fewer than {ENOUGH_SEEDS} finished seeds: no claim yet."
    low, high = found.interval(1 - error)
    gains, loses = (low > 0, high < 0) if results.metric.higher_is_better else (high < 0, low > 0)
    if gains:
        meaning = "looking at the direction of each weight adds to shrinking here"
    elif loses:
        meaning = "shrinking all weights alike does better here"
    else:
        meaning = "what DASH gains is not shown to come from its direction rather than from shrinking as such"
    ends = " to ".join(results.metric.difference(end, "+", unit=False) for end in (low, high))
    return (
        f"{dash} minus {control}, last {results.metric.name}: {results.metric.difference(found.difference, '+')} "
        f"({level_text(error)} interval {ends}, {found.seeds} seeds); {meaning}."
    )


def _base(method: str) -> str:
    return method.split("[", 1)[0]


def _is_uniform_shrinking(method: str) -> bool:
    noise = re.search(r"\bnoise_std=([0-9.e+-]+)", method)
    return _base(method) == "shrink-perturb" and noise is not None and float(noise[1]) == 0


def scales_by_layer(results: Results) -> list[Html]:
    """Figures of how each DASH scaled the layers before its last stage, all seeds pooled."""
    blocks = []
    for number, method in enumerate(results.methods):
        by_seed = [run.reports for (name, _), run in results.runs.items() if name == method]
        stage = max((at for reports in by_seed for at in reports), default=0)
        reports = [reports[stage] for reports in by_seed if stage in reports]
        layers = _pooled_layers(reports)
        if not layers:
            continue
        lowest = reports[0].get("settings", {}).get("lambda", "lambda")
        figure = figures.layer_strips(
            layers, x_label="scale (1: kept, small: shrunk)", at_least_label=f"share at {lowest}"
        )
        svg = figures.to_svg(
            figure, name=f"scales-{number}", description=f"distribution of {method}'s scales in each layer"
        )
        over = f", {len(reports)} seeds pooled" if len(reports) > 1 else ""
        caption = (
            f"{method} before stage {stage}{over}. The darker, the more neurons have this scale; the diamond is the "
            f"mean. At {lowest} are the neurons whose cosine with the averaged negative gradient is {lowest} or less. "
            f"{_left_alone(reports)}"
        )
        blocks.append(html.figure(svg, caption))
    return [html.side_by_side(*blocks)] if blocks else []


def _pooled_layers(reports: Sequence[Mapping[str, Any]]) -> list[figures.Distribution]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for report in reports:
        for layer in report.get("layers", []):
            if layer.get("histogram"):
                by_name.setdefault(layer["name"], []).append(layer)
    return [
        figures.Distribution(
            name=name.removesuffix(".weight"),
            counts=np.sum([layer["histogram"] for layer in found], axis=0).tolist(),
            mean=fmean(layer["mean"] for layer in found),
            at_least=fmean(layer["at_lambda"] for layer in found),
        )
        for name, found in by_name.items()
    ]


def _left_alone(reports: Sequence[Mapping[str, Any]]) -> str:
    reasons = Counter(str(left["reason"]) for left in reports[0].get("left_alone", []))
    return (
        "Left alone: " + "; ".join(f"{count} × {reason}" for reason, count in reasons.items()) + "." if reasons else ""
    )


def recalibrated(results: Results) -> list[Html]:
    """A table of the last metric as trained and with recomputed batch-norm statistics; nothing without batch norm."""
    rows = []
    for method in results.methods:
        last = [run[-1] for run in results.finished(method).values()]
        last = [row for row in last if math.isfinite(row.recalibrated_test_accuracy)]
        if not last:
            continue
        scale, form = results.metric.scale, results.metric.form
        plain = [scale * row.test_accuracy for row in last]
        recalibrated = [scale * row.recalibrated_test_accuracy for row in last]
        gained = [after - before for before, after in zip(plain, recalibrated, strict=True)]
        cells = [table.mean_std(values, form) for values in (plain, recalibrated)]
        rows.append((method, *cells, table.mean_std(gained, "+" + form)))
    if not rows:
        return []
    head = (table.columns(results.metric)[0], table.columns(results.metric)[1], "recalibrated", "gained")
    caption = (
        f"Test {results.metric.name} after the last stage: as trained, and with batch norm's running statistics "
        "computed anew on the training data."
    )
    return [html.table(head, rows, caption=caption)]


def unsettled_warning(results: Results) -> Html:
    """A warning of stages too short for batch norm's running statistics; nothing if all were long enough."""
    short = [
        row for row in results.rows if math.isfinite(row.recalibrated_test_accuracy) and 0 < row.steps < SETTLED_UPDATES
    ]
    if not short:
        return Html("")
    stages = Counter(row.method for row in short)
    totals = Counter(row.method for row in results.rows)
    fewest = min(row.steps for row in short)
    which = ", ".join(f"{method} ({count} of {totals[method]})" for method, count in stages.items())
    return html.paragraph(
        f"Some stages ended before batch norm's running statistics could follow, after fewer than "
        f"{SETTLED_UPDATES} updates: {which}. After {fewest}, the fewest, {0.9**fewest:.0%} of the statistics are "
        "still those from before the stage, which can cost accuracy in evaluation. Compare with the recalibrated "
        "figures below; a smaller batch or learning rate gives more updates.",
        kind="warning",
    )
