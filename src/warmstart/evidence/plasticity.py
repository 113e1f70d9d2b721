"""What the measures of plasticity show: a file of all of them, small multiples by stage, ten lines for a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from statistics import fmean

from rich.table import Table

from warmstart.diagnostics.measure import measures
from warmstart.evidence.table import terminal_table
from warmstart.reporting import figures, html
from warmstart.reporting.html import Html
from warmstart.runs.results import Results

TEN = (
    *("dormant-units", "effective-rank", "feature-rank", "weight-norm", "effective-rate"),
    *("gradient-norm[previous]", "gradient-norm[new]", "isometry", "sharpness", "readiness"),
)
"""For the terminal."""
_MOST_METHODS = 5
_COLUMNS = ("method", "seed", "stage", "measure", "layer", "value")


def diagnostics_csv(results: Results) -> str:
    """All measurements as CSV, one a line; the layer is empty for the whole network."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for (method, seed), run in results.runs.items():
        for stage, values in run.diagnoses.items():
            writer.writerows((method, seed, stage, name, layer, repr(value)) for name, layer, value in values)
    return text.getvalue()


def by_stage(results: Results) -> list[Html]:
    """Small multiples: each measure of the whole network by stage, mean over seeds; nothing where none was taken."""
    names = _names(results)
    if not names:
        return []
    panels = [(name, [figures.Series(m, *_line(results, name, m)) for m in results.methods]) for name in names]
    figure = figures.small_multiples(panels, x_label="stage")
    caption = (
        "The network that each stage begins with, behind the method's act and before training, on the newest examples; "
        "mean over seeds. By layer and by seed they are in `diagnostics.csv`."
    )
    svg = figures.to_svg(figure, name="plasticity", description="measures of plasticity by stage for each method")
    known = measures()
    kinds = dict.fromkeys(name.partition("[")[0] for name in names)
    meanings = [f"{kind}: {known[kind].summary}" for kind in kinds if kind in known]
    return [html.figure(svg, caption), html.bullets(meanings)]


def last_stage(results: Results) -> Table | None:
    """Ten measures at the last stage's start, mean over seeds; None where none was taken."""
    names = [name for name in TEN if name in _names(results)]
    if not names:
        return None
    shown = list(results.methods)[:_MOST_METHODS]
    table = terminal_table((f"plasticity, stage {results.stages}", *shown))
    for name in names:
        means = (_mean(_values(results, name, method, results.stages)) for method in shown)
        table.add_row(name, *("–" if math.isnan(mean) else f"{mean:.3g}" for mean in means))
    return table


def _names(results: Results) -> list[str]:
    """Of the whole network's measures, in the order in which they were taken."""
    taken = (values for run in results.runs.values() for values in run.diagnoses.values())
    return list(dict.fromkeys(name for values in taken for name, layer, _ in values if not layer))


def _line(results: Results, name: str, method: str) -> tuple[list[int], list[float]]:
    means = {stage: _mean(_values(results, name, method, stage)) for stage in range(1, results.stages + 1)}
    known = {stage: mean for stage, mean in means.items() if math.isfinite(mean)}
    return list(known), list(known.values())


def _values(results: Results, name: str, method: str, stage: int) -> Iterable[float]:
    for (of, _), run in results.runs.items():
        for measure, layer, value in run.diagnoses.get(stage, ()) if of == method else ():
            if measure == name and not layer:
                yield value


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return fmean(held) if held else math.nan
