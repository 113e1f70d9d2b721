"""Write the tables and figures of docs/evidence/ from what was measured; given a folder of grids, take theirs first.

    python docs/make_evidence.py [out/evidence]

Of each grid that a page names, small files are kept beside the pages: NAME.csv, its stages; NAME.json, the command, the
versions, and differences with their intervals, which rest on the scores of single test examples that are not kept;
NAME-trials.csv where methods were tuned. Tables and figures are made of these alone.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import stats

from warmstart.comparison.images import report_again
from warmstart.comparison.report import how_to_repeat
from warmstart.evidence.paired import Estimate
from warmstart.evidence.table import Row, cells, columns, mean_std
from warmstart.evidence.tuning import Tuned, Tuning
from warmstart.evidence.verdict import ENOUGH_SEEDS, estimate_difference, multiple
from warmstart.grids.record import Record, kind_of
from warmstart.reporting import figures, markdown
from warmstart.reporting.figures import Interval, Series
from warmstart.reproduction.manifest import reproduce_command
from warmstart.reproduction.reproduction import report_again as reproduction_again
from warmstart.reproduction.settings import ReproductionRecord
from warmstart.runs.metric import ACCURACY
from warmstart.runs.own_recipe import own_recipe
from warmstart.runs.results import Results
from warmstart.runs.stage_result import StageResult
from warmstart.wording import counted, split_names

FOLDER = Path(__file__).parent / "evidence"
BLOCK = re.compile(r"<!-- (?P<kind>[\w-]+): (?P<grid>[\w-]+) -->\n(?:.*?)<!-- end -->\n", re.DOTALL)
FIGURE = re.compile(r"!\[[^\]]*\]\((?P<kind>rates|against-cold)-(?P<grid>[\w-]+)\.png\)")
CONTROL = "shrink-perturb[noise_std=0.0]"
CONTROLS = (CONTROL, "family:Family")
"""Uniform shrinking, by either of its names."""
OWN = {"family": "docs/evidence", "pointwise_networks": "benchmarks"}
"""Modules that methods and networks come from, and where they are."""
LONG = 600
"""Letters of a command from which on a file of settings takes its place."""
KEPT = ("optimizer", "method", "seed", "stage", "test_accuracy", "steps", "epochs", "train_seconds", "status")
"""Columns of results.csv."""
Facts = Mapping[str, Any]
WHERE = [
    ((recipe, network, labels, size), f"where-{name}")
    for recipe, kind in (("paper's", "paper"), ("practice", "practice"))
    for network, labels, size, name in (
        ("small-cnn", "clean", "250", f"{kind}-clean"),
        ("small-cnn", "clean", "1000", f"{kind}-large"),
        ("small-cnn", "20 % drawn anew", "250", f"{kind}-noisy"),
        ("small-cnn without norm", "clean", "250", f"{kind}-none"),
        ("separable, 1x1-rich", "clean", "250", f"{kind}-pointwise"),
    )
]
"""Circumstances, and the grid that was measured under them."""


def page_files() -> list[Path]:
    """The pages that hold generated blocks."""
    return sorted(FOLDER.glob("*.md"))


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


# --- what is kept of a grid


def keep(out: Path) -> bool:
    """Take what the pages need from the grid in a folder; False, and nothing is taken, if it is not complete."""
    if kind_of(out) == ReproductionRecord.kind:
        tables = reproduction_again(out)
        record: Record[Any] = tables.record
        by_optimizer, command, tuning, verdict = tables.results, reproduce_command(tables.record), None, ""
    else:
        outcome = report_again(out)
        record, tuning, verdict = outcome.record, outcome.tuning, outcome.verdict.sentence
        command = how_to_repeat(outcome.record).split("`")[1]
        by_optimizer = {"": outcome.results}
    if not all(one.are_over(len(one.seeds)) for one in by_optimizer.values()):
        return False
    rows = [row for one in by_optimizer.values() for row in one.rows]
    if tuning is not None and tuning.tested is not None:
        rows = tuning.tested.rows
        shutil.copy(out / "tuning" / "trials.csv", FOLDER / f"{out.name}-trials.csv")
    command = re.sub(r"--data \S*/([\w-]+)(?=\s)", r"--data \1/", command)
    command = re.sub(r"--data \S*/([\w-]+\.npz)", r"--data \1", command)
    if len(command) > LONG:
        settings = dict(zip(*[iter(shlex.split(command)[2:])] * 2, strict=True))
        values = {flag[2:].replace("-", "_"): yaml.safe_load(value) for flag, value in settings.items()}
        content = yaml.safe_dump({**values, "methods": split_names(settings["--methods"])}, sort_keys=False)
        (FOLDER / f"{out.name}.yaml").write_text(content, encoding="utf-8")
        command = f"warmstart compare docs/evidence/{out.name}.yaml"
    paths = [
        folder for module, folder in OWN.items() if any(f"{module}:" in f"{row.method} {row.model}" for row in rows)
    ]
    command = " ".join([*(f"PYTHONPATH={folder}" for folder in paths), command])
    facts = {
        "command": command,
        "torch": record.provenance.torch,
        "machine": record.provenance.machine,
        "training_seconds": round(sum(row.train_seconds for row in rows)),
        "verdict": verdict,
        "differences": [
            {"optimizer": optimizer, "of": ours, "to": theirs, **_difference(one, ours, theirs)}
            for optimizer, one in by_optimizer.items()
            for ours, theirs in _pairs(one)
        ],
        "tuned": {} if tuning is None else {one.method: _tuned(tuning, one) for one in tuning.tuned},
    }
    (FOLDER / f"{out.name}.csv").write_text(_compact(rows), encoding="utf-8")
    (FOLDER / f"{out.name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return True


def _compact(rows: Sequence[StageResult]) -> str:
    """What tables need of the rows, numbers to five digits, far more than two runs share."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(KEPT)
    for row in rows:
        values = [getattr(row, name) for name in KEPT]
        lines.writerow([f"{value:.5g}" if isinstance(value, float) else value for value in values])
    return text.getvalue()


def _pairs(results: Results) -> Iterator[tuple[str, str]]:
    """Which methods are compared: each with cold, warm and uniform shrinking, at equal and at best rates."""
    rates = _by_rate(results)
    best = {method: _best(results, of_one) for method, of_one in rates.items()}
    at_given = [{m: of_one[rate] for m, of_one in rates.items() if rate in of_one} for rate in _given(rates)]
    for names in (best, *at_given):
        for ours in names:
            for theirs in ("cold", "warm", *CONTROLS):
                if theirs in names and names[ours] != names[theirs]:
                    yield names[ours], names[theirs]
    for method, of_one in rates.items():
        for rate in _given(rates):
            if rate in of_one and best[method] != of_one[rate]:
                yield best[method], of_one[rate]


def _difference(results: Results, ours: str, theirs: str) -> Facts:
    estimate = estimate_difference(results, ours, theirs)
    found = _interval(estimate)
    steps = [[run[-1].steps for run in results.finished(method).values()] for method in (ours, theirs)]
    return {**found, "steps_ratio": round(statistics.fmean(steps[0]) / statistics.fmean(steps[1]), 3)} if found else {}


def _interval(estimate: Estimate | None) -> dict[str, float]:
    if estimate is None or estimate.seeds < ENOUGH_SEEDS:
        return {}
    low, high = estimate.interval()
    points = [round(100 * value, 2) for value in (estimate.difference, low, high)]
    return {**dict(zip(("points", "low", "high"), points, strict=True)), "seeds": estimate.seeds}


def _tuned(tuning: Tuning, one: Tuned) -> Facts:
    return {
        "chosen": one.chosen.label,
        "trials": len(one.trials),
        "failed": one.failures,
        "gain": _interval(tuning.gain(one)),
    }


@cache
def _kept(grid: str) -> tuple[Results, Facts]:
    """The results of a grid with SGD, or with its only optimizer, and what else is kept of it."""
    facts: Facts = json.loads((FOLDER / f"{grid}.json").read_text(encoding="utf-8"))
    with (FOLDER / f"{grid}.csv").open(newline="", encoding="utf-8") as file:
        rows = [_row(line) for line in csv.DictReader(file)]
    optimizer = "sgd" if any(row.optimizer == "sgd" for row in rows) else rows[0].optimizer
    rows = [row for row in rows if row.optimizer == optimizer]
    methods = tuple(dict.fromkeys(row.method for row in rows))
    seeds = sorted({row.seed for row in rows})
    results = Results(methods, seeds, max(row.stage for row in rows), rows=rows)
    chosen = {method: one["chosen"] for method, one in facts["tuned"].items()}
    return (results.under(chosen) if chosen else results), facts


def _row(line: Mapping[str, str]) -> StageResult:
    whole = {name: int(line[name]) for name in ("seed", "stage", "steps", "epochs")}
    measured = {name: float(line[name]) for name in ("test_accuracy", "train_seconds")}
    which = {name: line[name] for name in ("optimizer", "method", "status")}
    absent = {"data": "", "model": "", "train_examples": 0, "test_loss": nan, "train_accuracy": nan}
    return StageResult(**{**absent, "method_seconds": nan, **which, **whole, **measured})  # type: ignore[arg-type]


# --- rates


def _by_rate(results: Results) -> dict[str, dict[float, str]]:
    """Method without its rate -> rate -> label; the rate is 0 where none is named."""
    found: dict[str, dict[float, str]] = {}
    for label in results.methods:
        method, own = own_recipe(label)
        found.setdefault(method, {})[own.get("lr", 0.0)] = label
    return found


def _given(rates: Mapping[str, Mapping[float, str]]) -> list[float]:
    """The lowest rate, the paper's, where there are several."""
    every = {rate for of_one in rates.values() for rate in of_one}
    return [min(every)] if len(every) > 1 else []


def _best(results: Results, of_one: Mapping[float, str]) -> str:
    """The label with the best mean accuracy."""
    return max(of_one.values(), key=lambda label: _mean_last(results, label))


def _mean_last(results: Results, label: str) -> float:
    return statistics.fmean(Row.of(results, label).last_metric or [0.0])


def _between(facts: Facts, ours: str, theirs: str) -> Facts:
    """The difference of two methods that was kept; empty where there is none."""
    return next((one for one in facts["differences"] if (one["of"], one["to"]) == (ours, theirs)), {})


# --- blocks


def command(grid: str) -> str:
    """The command that repeats a grid, and what it was computed with."""
    results, facts = _kept(grid)
    lines = textwrap.wrap(facts["command"], 114, break_long_words=False, break_on_hyphens=False)
    shown = " \\\n  ".join(lines)
    runs = sum(len(results.finished(method)) for method in results.methods)
    about = f"{counted(len(results.seeds), 'seed')}; {counted(runs, 'run')}, torch {facts['torch']}, {facts['machine']}"
    return f"```sh\n{shown}\n```\n\n{about}, {facts['training_seconds'] / 60:.0f} core-minutes of training.\n"


def summary(grid: str) -> str:
    """Each method's row, and its difference from cold and warm."""
    results, facts = _kept(grid)
    head = (*columns(ACCURACY), "minus cold, points", "minus warm, points", "last steps of cold's")
    rows = [
        (
            *cells(Row.of(results, method), ACCURACY),
            *(_points(_between(facts, method, other)) for other in ("cold", "warm")),
            _ratio(_between(facts, method, "cold")),
        )
        for method in results.methods
    ]
    return markdown.table(head, rows)


def rates(grid: str) -> str:
    """Last accuracy and steps of each method at each rate."""
    results, _ = _kept(grid)
    by_rate = _by_rate(results)
    every = sorted({rate for of_one in by_rate.values() for rate in of_one})
    rows = [
        (_short(method), *(_accuracy_and_steps(results, of_one[rate]) if rate in of_one else "–" for rate in every))
        for method, of_one in by_rate.items()
    ]
    return markdown.table(("last accuracy % / steps", *(f"{rate:g}" for rate in every)), rows)


def gains(grid: str) -> str:
    """What each method gains over cold at the lowest rate, and each at its best."""
    results, facts = _kept(grid)
    by_rate = _by_rate(results)
    best = {method: _best(results, of_one) for method, of_one in by_rate.items()}
    (lowest,) = _given(by_rate)
    head = (
        *("method", f"minus cold at {lowest:g}", "best rate", "from it, points", "minus cold, both at best"),
        *("last steps of cold's", "minus uniform shrinking, both at best"),
    )
    rows = []
    for method, label in best.items():
        at_lowest, cold = by_rate[method][lowest], best["cold"]
        gained = _between(facts, label, at_lowest)
        rows.append(
            (
                _short(method),
                _points(_between(facts, at_lowest, by_rate["cold"][lowest])),
                f"{own_recipe(label)[1]['lr']:g}",
                _points(gained),
                _points(_between(facts, label, cold)),
                _ratio(_between(facts, label, cold)),
                _points(_between(facts, label, best.get(CONTROL, ""))),
            )
        )
    return markdown.table(head, rows)


def tuned(grid: str) -> str:
    """What was chosen of each method, and how it fares on fresh seeds."""
    results, facts = _kept(grid)
    head = (
        *("method", "chosen", "last accuracy %", "last steps", "gain by tuning", "minus cold, points"),
        *("minus warm, points", "failed trials"),
    )
    rows = []
    for method, one in facts["tuned"].items():
        row = Row.of(results, method)
        rows.append(
            (
                method,
                one["chosen"].partition("[")[2].removesuffix("]").replace(",", ", ") or "as given",
                mean_std([100 * value for value in row.last_metric], ".2f"),
                mean_std(row.last_steps, ".0f"),
                _points(one["gain"]),
                *(_points(_between(facts, method, other)) for other in ("cold", "warm")),
                f"{one['failed']} of {one['trials']}",
            )
        )
    return markdown.table(head, rows)


def verdict(grid: str) -> str:
    """What the comparison advises, in its own words."""
    return f"> {markdown.sentence(_kept(grid)[1]['verdict'])}\n"


def family(grid: str) -> str:
    """Each arm beside uniform shrinking, best first."""
    results, facts = _kept(grid)
    control = next(name for name in CONTROLS if name in results.methods)
    rows = [
        (
            method.removeprefix("family:Family").strip("[]").replace(",", ", ") or "uniform shrinking",
            *cells(Row.of(results, method), ACCURACY)[1:3],
            _points(_between(facts, method, control)),
            _points(_between(facts, method, "cold")),
        )
        for method in sorted(results.methods, key=lambda m: -_mean_last(results, m))
    ]
    return markdown.table(("arm", *columns(ACCURACY)[1:3], "minus uniform shrinking, points", "minus cold"), rows)


def where(_all: str) -> str:
    """Of each grid of `WHERE` that was measured the best method, and what it gains over warm and cold."""
    rows = []
    for circumstances, grid in WHERE:
        if not (FOLDER / f"{grid}.json").exists():
            continue
        results, facts = _kept(grid)
        best = max((m for m in results.methods if m != "cold"), key=lambda m: _mean_last(results, m))
        cold, warm = (_mean_last(results, method) for method in ("cold", "warm"))
        rows.append(
            (
                *circumstances,
                f"{100 * cold:.1f}",
                f"{100 * warm:.1f}",
                _short(best),
                _points(_between(facts, best, "cold")),
                _points(_between(facts, best, "warm")),
                _ratio(_between(facts, best, "cold")),
            )
        )
    head = ("recipe", "network", "labels", "a stage", "cold %", "warm %", "best", "minus cold, points", "minus warm")
    return markdown.table((*head, "last steps of cold's"), rows)


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
    block.__name__: block for block in (command, summary, rates, gains, tuned, verdict, family, where, draws)
}


def _accuracy_and_steps(results: Results, label: str) -> str:
    row = Row.of(results, label)
    if not row.last_metric:
        return "diverged" if results.diverged(label) else "–"
    return f"{mean_std([100 * value for value in row.last_metric], '.1f')} / {statistics.fmean(row.last_steps):.0f}"


def _points(difference: Facts) -> str:
    if "points" not in difference:
        return "–"
    return f"{difference['points']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})"


def _ratio(difference: Facts) -> str:
    return f"{multiple(difference['steps_ratio'])}" if "steps_ratio" in difference else "–"


# --- figures


def rates_figure(grid: str) -> Figure:
    """Last accuracy by rate, a line a method."""
    results, _ = _kept(grid)
    series = []
    for method, of_one in _by_rate(results).items():
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
    results, facts = _kept(grid)
    shown = [(method, _between(facts, method, "cold")) for method in results.methods]
    rows = [Interval(_short(m), one["low"], one["points"], one["high"]) for m, one in shown if "points" in one]
    return figures.intervals(rows, x_label="last accuracy minus cold's, points")


FIGURES: Mapping[str, Callable[[str], Figure]] = {"rates": rates_figure, "against-cold": against_cold}


def _short(method: str) -> str:
    return "uniform shrinking" if method == CONTROL else method


def main(arguments: Sequence[str]) -> None:
    """Keep what grids have, if a folder of them is given; write pages and figures."""
    named = {match["grid"] for page in page_files() for match in BLOCK.finditer(page.read_text(encoding="utf-8"))}
    named |= {grid for _, grid in WHERE}
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
