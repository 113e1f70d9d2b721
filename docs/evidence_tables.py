"""The tables of docs/evidence/, each made of what `kept_grids` keeps of one grid."""

from __future__ import annotations

import csv
import statistics
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from kept_grids import (
    CONTROL,
    CONTROLS,
    FOLDER,
    RULE,
    Facts,
    as_estimate,
    best_label,
    between,
    kept,
    labels_by_rate,
    mean_last,
    rates_in,
    short,
)
from warmstart.evidence.comparisons import multiple, total_steps
from warmstart.evidence.paired import ERROR, Estimate, estimate
from warmstart.evidence.table import Row, cells, columns, mean_std
from warmstart.reporting import markdown
from warmstart.reproduction.against_published import paired_figures
from warmstart.reproduction.published import PUBLISHED
from warmstart.runs.metric import ACCURACY
from warmstart.runs.own_recipe import own_recipe
from warmstart.runs.results import Results
from warmstart.wording import counted

ENDED = ("done", "plateau")
"""Of trials that did not fail."""
ALL_STEPS = "all steps / cold's"
METHOD, LAST, LAST_STEPS, MEAN, _ = columns(ACCURACY)
LAST_TWO = ("last_accuracy", "last_steps")
"""Of the paper's four figures."""
WHERE = [
    ((recipe, network, labels, size), grid)
    for recipe, kind, tuned in (("paper's", "paper", "incremental"), ("practice", "practice", "practice"))
    for network, labels, size, grid in (
        ("small-cnn", "clean", "250", f"where-{kind}-clean"),
        ("small-cnn", "clean", "1000", f"tuned-{tuned}-cifar10-given"),
        ("small-cnn", "20 % drawn anew", "250", f"where-{kind}-noisy"),
        ("small-cnn without norm layers, rate 0.01", "clean", "250", f"where-{kind}-none-low"),
        ("separable, 1x1-rich", "clean", "250", f"where-{kind}-pointwise"),
    )
]
"""Circumstances, and the grid that was measured under them."""


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
    """Each method's accuracy, its difference from the best known ones, and its steps."""
    results, facts = kept(grid)
    others = [method for method in ("cold", "warm", CONTROL, "dash") if method in results.methods]
    head = (METHOD, LAST, MEAN, *(f"minus {short(other)}" for other in others), LAST_STEPS, ALL_STEPS)
    rows = []
    for method in results.methods:
        _, last, last_steps, mean, _ = cells(Row.of(results, method), ACCURACY)
        differences = [_points(between(facts, method, other)) for other in others]
        done = len(results.finished(method))
        name = short(method) + ("" if done == len(results.seeds) else f", {done} of {len(results.seeds)} seeds")
        rows.append((name, last, mean, *differences, last_steps, _steps(results, method, "cold")))
    return markdown.table(head, rows)


def published(grid: str) -> str:
    """Each method's accuracy and steps beside the paper's, whose settings are others."""
    results, facts = kept(grid)
    dataset = facts["command"].split()[2]
    head = (METHOD, LAST, "published", LAST_STEPS, "published", MEAN, "mean steps")
    rows = []
    for method in results.methods:
        figures = paired_figures(results, method, PUBLISHED[dataset].get((results.rows[0].optimizer, method)))
        (last, last_published, _), (steps, steps_published, _) = (figures[name].cells() for name in LAST_TWO)
        mean, mean_steps = (figures[name].cells()[0] for name in ("mean_accuracy", "mean_steps"))
        rows.append((short(method), last, last_published, steps, steps_published, mean, mean_steps))
    return markdown.table(head, rows)


def rates(grid: str) -> str:
    """Last accuracy and steps of each method at each rate."""
    results, _ = kept(grid)
    by_rate = labels_by_rate(results)
    every = rates_in(by_rate)
    rows = [
        (short(method), *(_accuracy_and_steps(results, of_one[rate]) if rate in of_one else "–" for rate in every))
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
        *(ALL_STEPS, "minus uniform shrinking, both at best"),
    )
    rows = []
    for method, label in best.items():
        at_lowest, cold = by_rate[method][lowest], best["cold"]
        gained = between(facts, label, at_lowest)
        rows.append(
            (
                short(method),
                _points(between(facts, at_lowest, by_rate["cold"][lowest])),
                f"{own_recipe(label)[1]['lr']:g}",
                _points(gained),
                _points(between(facts, label, cold)),
                _steps(results, label, cold),
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
        (short(method), *(_points(between(facts, of_one.get(rate, ""), cold[rate])) for rate in every))
        for method, of_one in by_rate.items()
        if method != "cold"
    ]
    return markdown.table(("minus cold at the same rate", *(f"{rate:g}" for rate in every)), rows)


def steps_at_rates(grid: str) -> str:
    """Each method's steps over cold's at the same rate, rate by rate."""
    results, _ = kept(grid)
    by_rate = labels_by_rate(results)
    cold, every = by_rate["cold"], rates_in(by_rate)
    rows = [
        (short(method), *(_steps(results, of_one.get(rate, ""), cold[rate]) for rate in every))
        for method, of_one in by_rate.items()
        if method != "cold"
    ]
    return markdown.table((f"{ALL_STEPS} at the same rate", *(f"{rate:g}" for rate in every)), rows)


def by_stage(grid: str) -> str:
    """What each method, at its best rate, is ahead of cold after each stage, and of cold with a stage more."""
    results, _ = kept(grid)
    best = {method: best_label(results, of_one) for method, of_one in labels_by_rate(results).items()}
    later = range(1, results.stages)
    head = (
        "minus cold, both at their best rates",
        *(f"after stage {stage + 1}" for stage in later),
        *(f"after {stage}, cold after {stage + 1}" for stage in later if stage > 1),
    )
    rows = [
        (
            short(method),
            *(_points(_after(results, label, stage, best["cold"], stage)) for stage in later),
            *(_points(_after(results, label, stage - 1, best["cold"], stage)) for stage in later if stage > 1),
        )
        for method, label in best.items()
        if method != "cold"
    ]
    return markdown.table(head, rows)


def _after(results: Results, ours: str, stage: int, theirs: str, their_stage: int) -> Estimate:
    """The difference of two methods after stages, counted from 0; of the seeds alone."""
    runs, others = results.finished(ours), results.finished(theirs)
    differences = [runs[s][stage].test_accuracy - others[s][their_stage].test_accuracy for s in runs if s in others]
    return estimate(np.array(differences))


def chosen(grid: str) -> str:
    """What tuning chose of each method, and on what grounds."""
    _, facts = kept(grid)
    with (FOLDER / f"{grid}-trials.csv").open(newline="", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    rows = []
    for method, one in facts["tuned"].items():
        own = [trial for trial in trials if trial["method"] == method]
        ended = [100 * float(trial["validation_accuracy"]) for trial in own if trial["status"] in ENDED]
        (best,) = (trial["validation_accuracy"] for trial in own if trial["chosen"] == "yes")
        rows.append(
            (
                short(method),
                one["chosen"].partition("[")[2].removesuffix("]").replace(",", ", ") or "as given",
                f"{100 * float(own[0]['validation_accuracy']):.1f}",
                f"{100 * float(best):.1f}",
                mean_std(ended, ".1f"),
                f"{one['failed']} of {one['trials']}",
            )
        )
    head = ("method", "chosen", "validation %: as given", "as chosen", "trials that ended, mean (std)", "failed")
    return markdown.table(head, rows)


def tested(grid: str) -> str:
    """How methods do on fresh seeds, as given and as tuned; then what the tuned ones differ by."""
    results, facts = kept(grid)
    given, of_given = kept(f"{grid}-given")
    rows = []
    for method, one in facts["tuned"].items():
        as_given, tuned = (cells(Row.of(of_one, method), ACCURACY)[1] for of_one in (given, results))
        steps = (_steps(of_one, method, "cold") for of_one in (given, results))
        rows.append((short(method), as_given, tuned, _points(as_estimate(one["gain"])), *steps))
    head = ("method", "last accuracy %: as given", "tuned", "gain", f"{ALL_STEPS}: as given", "tuned")
    others = ("cold", "warm", CONTROL, "dash")
    differences = [
        (
            short(method),
            _points(between(of_given, method, "cold")),
            *(_points(between(facts, method, other)) for other in others if other in results.methods),
        )
        for method in facts["tuned"]
    ]
    names = ("minus cold: as given", *(f"tuned, minus {short(other)}" for other in others if other in results.methods))
    return f"{markdown.table(head, rows)}\n{markdown.table(('method', *names), differences)}"


def claim(grid: str) -> str:
    """The rule of one-family.md against those of whom its claim speaks, each as tuned."""
    results, facts = kept(grid)
    rows = [
        (short(other), _points(between(facts, RULE, other), digits=2), _steps(results, RULE, other))
        for other in (CONTROL, "dash", "fire")
    ]
    return markdown.table(("isometric shrinking against", "last accuracy, points", "all steps"), rows)


def verdict(grid: str) -> str:
    """What the comparison advises, in its own words."""
    return f"> {markdown.sentence(kept(grid)[1]['verdict'])}\n"


def scale_spectrum(grid: str) -> str:
    """The arms that have a scale and a spectrum alone, as a table of both: what they are ahead of uniform shrinking."""
    results, facts = kept(grid)
    control = _control(results)
    found = {(0.3, 0.0): control}
    for method in results.methods:
        settings = _settings(method)
        if settings and settings.keys() <= {"scale", "spectrum"}:
            found[float(settings.get("scale", 0.3)), float(settings.get("spectrum", 0.0))] = method
    scales, spectra = (sorted({place[axis] for place in found}) for axis in (0, 1))
    rows = [
        (
            f"scale {scale:g}",
            *(_arm_cell(results, facts, found.get((scale, spectrum), ""), control) for spectrum in spectra),
        )
        for scale in scales
    ]
    return markdown.table(("minus uniform shrinking; " + ALL_STEPS, *(f"spectrum {one:g}" for one in spectra)), rows)


def _arm_cell(results: Results, facts: Facts, method: str, control: str) -> str:
    if method not in results.methods:
        return "–"
    points = "0" if method == control else _points(between(facts, method, control))
    return f"{points}; {multiple(total_steps(results, method, 'cold')[0])}"


def family(grid: str) -> str:
    """All other arms beside uniform shrinking: methods first, then by what they change."""
    results, facts = kept(grid)
    control = _control(results)
    arms = [
        m
        for m in results.methods
        if (m != control and not _settings(m).keys() <= {"scale", "spectrum"}) or ":" not in m
    ]
    rows = [
        (
            _arm(method),
            cells(Row.of(results, method), ACCURACY)[1],
            _points(between(facts, method, control)),
            _points(between(facts, method, "cold")),
            _steps(results, method, "cold"),
        )
        for method in sorted(arms, key=lambda m: (":" in m, sorted(_settings(m).keys() - {"scale", "spectrum"})))
    ]
    head = ("arm", LAST, "minus uniform shrinking", "minus cold", ALL_STEPS)
    return markdown.table(head, rows)


def _control(results: Results) -> str:
    return next(name for name in CONTROLS if name in results.methods)


def _settings(method: str) -> dict[str, str]:
    """The settings of an arm of the family; none of another method."""
    inside = method.partition("[")[2].removesuffix("]") if ":" in method else ""
    return dict(one.split("=", 1) for one in inside.split(",") if one)


def _arm(method: str) -> str:
    return ", ".join("=".join(one) for one in _settings(method).items()) or short(method)


def where(_all: str) -> str:
    """Of each grid of `WHERE` that was measured the best method, and what it gains over warm and cold."""
    rows = []
    for circumstances, grid in WHERE:
        if not (FOLDER / f"{grid}.json").exists():
            continue
        results, facts = kept(grid)
        others = [method for method in results.methods if method != "cold" and ":" not in method]  # the library's
        best = max(others, key=lambda method: mean_last(results, method))
        together = 1 - ERROR / len(others)
        cold, warm = (mean_last(results, method) for method in ("cold", "warm"))
        rows.append(
            (
                *circumstances,
                f"{100 * cold:.1f}",
                f"{100 * warm:.1f}",
                short(best),
                _points(between(facts, best, "cold"), together),
                _points(between(facts, best, "warm"), together),
                _steps(results, best, "cold"),
            )
        )
    head = ("recipe", "network", "labels", "a stage", "cold %", "warm %", "best", "minus cold, points", "minus warm")
    return markdown.table((*head, ALL_STEPS), rows)


def nights(name: str) -> str:
    """Optimizer updates of each night with each method, and the accuracy after it: means over seeds."""
    found: dict[str, dict[int, _Runs]] = {}
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as opened:
        for line in csv.DictReader(opened):
            night = found.setdefault(line["method"], {}).setdefault(int(line["night"]), _Runs([], []))
            night.accuracies.append(100 * float(line["accuracy"]))
            night.steps.append(int(line["steps"]))
    rows = []
    for method, passed in found.items():
        means = [statistics.fmean(runs.steps) for runs in passed.values()]
        rows.append((f"`{method}`, steps", *(f"{mean:,.0f}" for mean in means), f"{sum(means):,.0f}"))
    for method, passed in found.items():
        accuracies = (f"{statistics.fmean(runs.accuracies):.1f}" for runs in passed.values())
        rows.append((f"`{method}`, accuracy %", *accuracies, ""))
    return markdown.table(("night", *map(str, next(iter(found.values()))), "all"), rows)


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


def _accuracy_and_steps(results: Results, label: str) -> str:
    row = Row.of(results, label)
    if not row.last_metric:
        return "diverged" if results.diverged(label) else "–"
    return f"{mean_std([100 * value for value in row.last_metric], '.1f')} / {statistics.fmean(row.last_steps):.0f}"


def _points(found: Estimate | None, level: float = 1 - ERROR, *, digits: int = 1) -> str:
    if found is None:
        return "–"
    difference, low, high = (f"{100 * value:+.{digits}f}" for value in (found.difference, *found.interval(level)))
    return f"{difference} ({low} to {high})"


def _steps(results: Results, ours: str, theirs: str) -> str:
    """The ratio of the steps of all stages, with its interval."""
    return "–" if ours == theirs or ours not in results.methods else multiple(*total_steps(results, ours, theirs))


BLOCKS: Mapping[str, Callable[[str], str]] = {
    block.__name__: block
    for block in (
        *(command, summary, published, verdict, where, draws, nights),
        *(rates, at_rates, steps_at_rates, gains, by_stage, chosen, tested, claim, scale_spectrum, family),
    )
}
