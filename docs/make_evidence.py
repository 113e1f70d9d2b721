"""Write the tables and figures of docs/evidence/ from what was measured; given a folder of grids, take theirs first.

    python docs/make_evidence.py [out/evidence]

Of each grid that a page names, `kept_grids` keeps small files beside the pages. Tables and figures are made of these
alone.
"""

from __future__ import annotations

import csv
import re
import shutil
import statistics
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import stats

from kept_grids import (
    CONTROL,
    CONTROLS,
    FOLDER,
    as_estimate,
    best_label,
    between,
    keep,
    kept,
    labels_by_rate,
    mean_last,
    rates_in,
    steps_ratio,
)
from warmstart.evidence.paired import ERROR, Estimate
from warmstart.evidence.table import Row, cells, columns, mean_std
from warmstart.evidence.verdict import multiple
from warmstart.reporting import figures, markdown
from warmstart.reporting.figures import Interval, Series
from warmstart.runs.metric import ACCURACY
from warmstart.runs.own_recipe import own_recipe
from warmstart.runs.results import Results
from warmstart.wording import counted

BLOCK = re.compile(r"<!-- (?P<kind>[\w-]+): (?P<grid>[\w-]+) -->\n(?:.*?)<!-- end -->\n", re.DOTALL)
FIGURE = re.compile(r"!\[[^\]]*\]\((?P<kind>rates|against-cold)-(?P<grid>[\w-]+)\.png\)")
WHERE = [
    ((recipe, network, labels, size), grid)
    for recipe, kind, tuned in (("paper's", "paper", "incremental"), ("practice", "practice", "practice"))
    for network, labels, size, grid in (
        ("small-cnn", "clean", "250", f"where-{kind}-clean"),
        ("small-cnn", "clean", "1000", f"tuned-{tuned}-cifar10-given"),
        ("small-cnn", "20 % drawn anew", "250", f"where-{kind}-noisy"),
        ("small-cnn without norm", "clean", "250", f"where-{kind}-none"),
        ("separable, 1x1-rich", "clean", "250", f"where-{kind}-pointwise"),
    )
]
"""Circumstances, and the grid that was measured under them."""


def page_files() -> list[Path]:
    """The pages that may hold generated blocks."""
    return sorted([*FOLDER.parent.glob("*.md"), *FOLDER.glob("*.md")])


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    return {page: BLOCK.sub(_block, page.read_text(encoding="utf-8")) for page in page_files()}


def drawings() -> dict[Path, Figure]:
    """The figures that pages show."""
    found = [match for page in page_files() for match in FIGURE.finditer(page.read_text(encoding="utf-8"))]
    return {FOLDER / f"{m['kind']}-{m['grid']}.png": FIGURES[m["kind"]](m["grid"]) for m in found}


def _block(match: re.Match[str]) -> str:
    kind, grid = match["kind"], match["grid"]
    return f"<!-- {kind}: {grid} -->\n{BLOCKS[kind](grid)}<!-- end -->\n"


# --- blocks


def command(grid: str) -> str:
    """The command that repeats a grid, and what it was computed with."""
    results, facts = kept(grid)
    lines = textwrap.wrap(facts["command"], 114, break_long_words=False, break_on_hyphens=False)
    shown = " \\\n  ".join(lines)
    seconds = facts["training_seconds"]
    runs = sum(len(results.finished(method)) for method in results.methods)
    what = counted(runs, "run")
    if chosen := facts.get("tuned"):
        trials = sum(one["trials"] for one in chosen.values())
        what = f"{counted(trials, 'trial')}, then {what} as chosen and as many as given"
        seconds += facts["trial_seconds"] + kept(f"{grid}-given")[1]["training_seconds"]
    about = f"{counted(len(results.seeds), 'seed')}; {what}, torch {facts['torch']}, {facts['machine']}"
    return f"```sh\n{shown}\n```\n\n{about}, {seconds / 60:.0f} core-minutes of training.\n"


def summary(grid: str) -> str:
    """Each method's row, and its difference from cold, warm and uniform shrinking."""
    results, facts = kept(grid)
    others = [method for method in ("cold", "warm", CONTROL) if method in results.methods]
    head = (*columns(ACCURACY), *(f"minus {_short(other)}" for other in others), "steps of cold's")
    rows = [
        (
            _short(method),
            *cells(Row.of(results, method), ACCURACY)[1:],
            *(_points(between(facts, method, other)) for other in others),
            multiple(steps_ratio(facts, method, "cold")),
        )
        for method in results.methods
    ]
    return markdown.table(head, rows)


def rates(grid: str) -> str:
    """Last accuracy and steps of each method at each rate."""
    results, _ = kept(grid)
    by_rate = labels_by_rate(results)
    every = rates_in(by_rate)
    rows = [
        (_short(method), *(_accuracy_and_steps(results, of_one[rate]) if rate in of_one else "–" for rate in every))
        for method, of_one in by_rate.items()
    ]
    return markdown.table(("last accuracy % / steps", *(f"{rate:g}" for rate in every)), rows)


def gains(grid: str) -> str:
    """What each method gains over cold at the lowest rate, and each at its best."""
    results, facts = kept(grid)
    by_rate = labels_by_rate(results)
    best = {method: best_label(results, of_one) for method, of_one in by_rate.items()}
    lowest = rates_in(by_rate)[0]
    head = (
        *("method", f"minus cold at {lowest:g}", "best rate", "from it, points", "minus cold, both at best"),
        *("steps of cold's", "minus uniform shrinking, both at best"),
    )
    rows = []
    for method, label in best.items():
        at_lowest, cold = by_rate[method][lowest], best["cold"]
        gained = between(facts, label, at_lowest)
        rows.append(
            (
                _short(method),
                _points(between(facts, at_lowest, by_rate["cold"][lowest])),
                f"{own_recipe(label)[1]['lr']:g}",
                _points(gained),
                _points(between(facts, label, cold)),
                multiple(steps_ratio(facts, label, cold)),
                _points(between(facts, label, best.get(CONTROL, ""))),
            )
        )
    return markdown.table(head, rows)


def at_rates(grid: str) -> str:
    """What each method gains over cold at the same rate, rate by rate."""
    results, facts = kept(grid)
    by_rate = labels_by_rate(results)
    cold, every = by_rate["cold"], rates_in(by_rate)
    rows = [
        (_short(method), *(_points(between(facts, of_one.get(rate, ""), cold[rate])) for rate in every))
        for method, of_one in by_rate.items()
        if method != "cold"
    ]
    return markdown.table(("minus cold at the same rate", *(f"{rate:g}" for rate in every)), rows)


def chosen(grid: str) -> str:
    """What tuning chose of each method, on what grounds, and what it gained on fresh seeds."""
    _, facts = kept(grid)
    with (FOLDER / f"{grid}-trials.csv").open(newline="", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    rows = []
    for method, one in facts["tuned"].items():
        accuracies = [100 * float(trial["validation_accuracy"]) for trial in trials if trial["method"] == method]
        (best,) = (t["validation_accuracy"] for t in trials if t["method"] == method and t["chosen"] == "yes")
        rows.append(
            (
                _short(method),
                one["chosen"].partition("[")[2].removesuffix("]").replace(",", ", ") or "as given",
                f"{accuracies[0]:.1f}",
                f"{100 * float(best):.1f}",
                mean_std([value for value in accuracies if isfinite(value)], ".1f"),
                f"{one['failed']} of {one['trials']}",
                _points(as_estimate(one["gain"])),
            )
        )
    head = ("method", "chosen", "validation %: given", "chosen", "trials", "failed", "gain on the test set, points")
    return markdown.table(head, rows)


def verdict(grid: str) -> str:
    """What the comparison advises, in its own words."""
    return f"> {markdown.sentence(kept(grid)[1]['verdict'])}\n"


def family(grid: str) -> str:
    """Each arm beside uniform shrinking, best first."""
    results, facts = kept(grid)
    control = next(name for name in CONTROLS if name in results.methods)
    rows = [
        (
            _arm(method),
            *cells(Row.of(results, method), ACCURACY)[1:3],
            _points(between(facts, method, control)),
            _points(between(facts, method, "cold")),
            multiple(steps_ratio(facts, method, "cold")),
        )
        for method in sorted(results.methods, key=lambda m: -mean_last(results, m))
    ]
    head = ("arm", *columns(ACCURACY)[1:3], "minus uniform shrinking", "minus cold", "steps of cold's")
    return markdown.table(head, rows)


def _arm(method: str) -> str:
    if method in CONTROLS:
        return "uniform shrinking"
    return method.removeprefix("family:Family[").removesuffix("]").replace(",", ", ") if ":" in method else method


def where(_all: str) -> str:
    """Of each grid of `WHERE` that was measured the best method, and what it gains over warm and cold."""
    rows = []
    for circumstances, grid in WHERE:
        if not (FOLDER / f"{grid}.json").exists():
            continue
        results, facts = kept(grid)
        others = [method for method in results.methods if method != "cold"]
        best = max(others, key=lambda method: mean_last(results, method))
        together = 1 - ERROR / len(others)
        cold, warm = (mean_last(results, method) for method in ("cold", "warm"))
        rows.append(
            (
                *circumstances,
                f"{100 * cold:.1f}",
                f"{100 * warm:.1f}",
                _short(best),
                _points(between(facts, best, "cold"), together),
                _points(between(facts, best, "warm"), together),
                multiple(steps_ratio(facts, best, "cold")),
            )
        )
    head = ("recipe", "network", "labels", "a stage", "cold %", "warm %", "best", "minus cold, points", "minus warm")
    return markdown.table((*head, "steps of cold's"), rows)


def draws(grid: str) -> str:
    """Stage by stage, a run of ours and one whose choices are drawn as the authors' are; Welch's interval."""
    ours, theirs = (_stages(FOLDER / f"{name}.csv") for name in (grid, "authors-draws"))
    rows = []
    for stage, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        difference = stats.ttest_ind(one.accuracies, other.accuracies, equal_var=False)
        low, high = difference.confidence_interval()
        mean = statistics.fmean(one.accuracies) - statistics.fmean(other.accuracies)
        rows.append(
            (
                str(stage),
                *(mean_std(runs.accuracies, ".2f") for runs in (one, other)),
                f"{mean:+.2f} ({low:+.2f} to {high:+.2f})",
                *(mean_std(runs.steps, ".0f") for runs in (one, other)),
            )
        )
    head = (
        "stage",
        "ours, accuracy %",
        "as the authors draw",
        "difference (95 %)",
        "ours, steps",
        "as the authors draw",
    )
    return markdown.table(head, rows)


class _Runs(NamedTuple):
    """One stage of all seeds."""

    accuracies: list[float]
    steps: list[int]


def _stages(file: Path) -> list[_Runs]:
    found: dict[int, _Runs] = {}
    with file.open(newline="", encoding="utf-8") as opened:
        for line in csv.DictReader(opened):
            stage = found.setdefault(int(line["stage"]), _Runs([], []))
            stage.accuracies.append(100 * float(line["test_accuracy"]))
            stage.steps.append(int(line["steps"]))
    return [found[stage] for stage in sorted(found)]


BLOCKS: Mapping[str, Callable[[str], str]] = {
    block.__name__: block for block in (command, summary, rates, at_rates, gains, chosen, verdict, family, where, draws)
}


def _accuracy_and_steps(results: Results, label: str) -> str:
    row = Row.of(results, label)
    if not row.last_metric:
        return "diverged" if results.diverged(label) else "–"
    return f"{mean_std([100 * value for value in row.last_metric], '.1f')} / {statistics.fmean(row.last_steps):.0f}"


def _points(found: Estimate | None, level: float = 1 - ERROR) -> str:
    if found is None:
        return "–"
    low, high = found.interval(level)
    return f"{100 * found.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


# --- figures


def rates_figure(grid: str) -> Figure:
    """Last accuracy by rate, a line a method."""
    results, _ = kept(grid)
    series = []
    for method, of_one in labels_by_rate(results).items():
        found = [(rate, [100 * a for a in Row.of(results, label).last_metric]) for rate, label in of_one.items()]
        found = [(rate, values) for rate, values in found if values]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in found]
        means = [statistics.fmean(values) for _, values in found]
        series.append(Series(_short(method), [rate for rate, _ in found], means, spread))
    figure = figures.cost_lines(series, x_label="learning rate", y_label="last accuracy, %")
    (axes,) = figure.axes
    every = sorted({rate for line in series for rate in line.x})
    axes.set_xscale("log")
    axes.set_xlim(every[0] / 1.2, every[-1] * 1.2)
    axes.set_xticks(every, [f"{rate:g}" for rate in every], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    return figure


def against_cold(grid: str) -> Figure:
    """Each method's difference from cold with its interval."""
    results, facts = kept(grid)
    shown = [(_short(method), found) for method in results.methods if (found := between(facts, method, "cold"))]
    rows = [Interval(name, *(100 * value for value in _around(found))) for name, found in shown]
    return figures.intervals(rows, x_label="last accuracy minus cold's, points")


def _around(found: Estimate) -> tuple[float, float, float]:
    low, high = found.interval()
    return low, found.difference, high


FIGURES: Mapping[str, Callable[[str], Figure]] = {"rates": rates_figure, "against-cold": against_cold}


def _short(method: str) -> str:
    return "uniform shrinking" if method == CONTROL else method


def main(arguments: Sequence[str]) -> None:
    """Keep what grids have, if a folder of them is given; write pages and figures."""
    named = {match["grid"] for page in page_files() for match in BLOCK.finditer(page.read_text(encoding="utf-8"))}
    named |= {grid for _, grid in WHERE}
    named = {grid.removesuffix("-given") for grid in named}  # which come with the tuned ones
    for folder in arguments:
        if (drawn := Path(folder) / "authors-draws.csv").exists():
            shutil.copy(drawn, FOLDER)
        for grid in sorted(named):
            if (Path(folder) / grid / "results.csv").exists():
                print(f"{'kept' if keep(Path(folder) / grid) else 'not complete:'} {grid}")
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
    for file, figure in drawings().items():
        file.write_bytes(figures.to_png(figure))
        print(f"wrote {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
