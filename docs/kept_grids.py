"""What docs/evidence/ keeps of a grid: its stages, and estimated differences, whose variance rests on what is not kept.

NAME.csv has the stages; NAME.json the command, the versions, and differences with the parts of their variance, which
rest on the scores of single test examples. Where methods were tuned, these are of the chosen settings; NAME-given.csv
and .json are of the methods as given, NAME-trials.csv has the trials.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from math import nan
from pathlib import Path
from typing import Any

import yaml

from warmstart.comparison.images import report_again
from warmstart.comparison.report import how_to_repeat
from warmstart.evidence.comparisons import ENOUGH_SEEDS, estimate_difference
from warmstart.evidence.paired import Estimate
from warmstart.evidence.table import Row
from warmstart.evidence.tuning import Tuned, Tuning
from warmstart.grids.record import Record, kind_of
from warmstart.reproduction.manifest import reproduce_command
from warmstart.reproduction.reproduction import report_again as reproduction_again
from warmstart.reproduction.settings import ReproductionRecord
from warmstart.runs.own_recipe import own_recipe
from warmstart.runs.results import Results
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState
from warmstart.wording import split_names

FOLDER = Path(__file__).parent / "evidence"
CONTROL = "shrink-perturb[noise_std=0.0]"
CONTROLS = (CONTROL, "family:Family")
"""Uniform shrinking, by either of its names."""
RULE = "family:Family[spectrum=1.0]"
"""What docs/evidence/one-family.md claims something of."""
OWN = {"family": "docs/evidence", "pointwise_networks": "benchmarks"}
"""Modules that methods and networks come from, and where they are."""
LONG = 600
"""Letters of a command from which on a file of settings takes its place."""
KEPT = ("optimizer", "method", "seed", "stage", "test_accuracy", "steps", "epochs", "train_seconds", "status")
"""Columns of results.csv."""
Facts = Mapping[str, Any]


def keep(out: Path) -> bool:
    """Take what the pages need from the grid in a folder; False, and nothing is taken, if it is not complete."""
    if kind_of(out) == ReproductionRecord.kind:
        tables = reproduction_again(out)
        if _complete(tables.results):
            _write(out.name, tables.results, _about(tables.record, reproduce_command(tables.record)))
        return _complete(tables.results)
    outcome = report_again(out)
    results, tuning = {"": outcome.results}, outcome.tuning
    if not _complete(results):
        return False
    about = _about(outcome.record, how_to_repeat(outcome.record).split("`")[1])
    if tuning is not None and tuning.tested is not None:
        given = {one.method: one.method for one in tuning.tuned}
        _write(f"{out.name}-given", {"": tuning.tested.under(given)}, about)
        shutil.copy(out / "tuning" / "trials.csv", FOLDER / f"{out.name}-trials.csv")
        about |= {"tuned": {one.method: _tuned(tuning, one) for one in tuning.tuned}}
        about |= {"trial_seconds": _train_seconds(out / "tuning" / "results.csv")}
    _write(out.name, results, {**about, "verdict": outcome.verdict.sentence})
    return True


def _complete(by_optimizer: Mapping[str, Results]) -> bool:
    return all(one.are_over(len(one.seeds)) for one in by_optimizer.values())


def _about(record: Record[Any], command: str) -> dict[str, Any]:
    provenance = record.provenance
    machine = ", ".join(filter(None, [provenance.machine, provenance.processor]))
    return {"command": command, "torch": provenance.torch, "machine": machine}


def _write(name: str, by_optimizer: Mapping[str, Results], about: Facts) -> None:
    rows = [row for one in by_optimizer.values() for row in one.rows]
    facts = {
        **about,
        "command": _command(name, about["command"], " ".join({f"{row.method} {row.model}" for row in rows})),
        "training_seconds": round(sum(row.train_seconds for row in rows)),
        "differences": [
            {"optimizer": optimizer, "of": ours, "to": theirs, **_difference(one, ours, theirs)}
            for optimizer, one in by_optimizer.items()
            for ours, theirs in _pairs(one)
        ],
    }
    (FOLDER / f"{name}.csv").write_text(_compact(rows), encoding="utf-8")
    (FOLDER / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _command(name: str, command: str, used: str) -> str:
    """The command from the repository's root, with no path of this machine; a long one takes a file of settings."""
    command = re.sub(r"--data \S*/([\w-]+)(?=\s)", r"--data \1/", command)
    command = re.sub(r"--data \S*/([\w-]+\.(?:npz|tar))", r"--data \1", command)
    if len(command) > LONG:
        settings = dict(zip(*[iter(shlex.split(command)[2:])] * 2, strict=True))
        values = {flag[2:].replace("-", "_"): yaml.safe_load(value) for flag, value in settings.items()}
        content = yaml.safe_dump({**values, "methods": split_names(settings["--methods"])}, sort_keys=False)
        (FOLDER / f"{name}.yaml").write_text(content, encoding="utf-8")
        command = f"warmstart compare docs/evidence/{name}.yaml"
    return " ".join([*(f"PYTHONPATH={folder}" for module, folder in OWN.items() if f"{module}:" in used), command])


def _train_seconds(file: Path) -> int:
    with file.open(newline="", encoding="utf-8") as opened:
        return round(sum(float(line["train_seconds"]) for line in csv.DictReader(opened)))


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
    """Which methods are compared: each with the best known ones, at equal and at best rates."""
    rates = labels_by_rate(results)
    best = {method: best_label(results, of_one) for method, of_one in rates.items()}
    at_equal = [{m: of_one[rate] for m, of_one in rates.items() if rate in of_one} for rate in rates_in(rates)]
    for names in (best, *(at_equal if len(at_equal) > 1 else ())):
        for ours in names:
            for theirs in ("cold", "warm", *CONTROLS, "dash", "fire"):
                if theirs in names and names[ours] != names[theirs]:
                    yield names[ours], names[theirs]
    for method, of_one in rates.items():
        lowest = of_one[min(of_one)]
        if best[method] != lowest:
            yield best[method], lowest


def _difference(results: Results, ours: str, theirs: str) -> Facts:
    found = _estimate(estimate_difference(results, ours, theirs))
    return {"estimate": found} if found else {}


def _estimate(found: Estimate | None) -> dict[str, float]:
    """What makes up an estimate, but for what is as by default."""
    if found is None or found.seeds < ENOUGH_SEEDS:
        return {}
    values = {
        field.name: getattr(found, field.name) for field in fields(found) if getattr(found, field.name) != field.default
    }
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}


def _tuned(tuning: Tuning, one: Tuned) -> Facts:
    return {
        "chosen": one.chosen.label,
        "trials": len(one.trials),
        "failed": one.failures,
        "gain": _estimate(tuning.gain(one)),
    }


@cache
def kept(grid: str) -> tuple[Results, Facts]:
    """The results of a grid with SGD, or with its only optimizer, and what else is kept of it."""
    facts: Facts = json.loads((FOLDER / f"{grid}.json").read_text(encoding="utf-8"))
    with (FOLDER / f"{grid}.csv").open(newline="", encoding="utf-8") as file:
        rows = [_row(line) for line in csv.DictReader(file)]
    optimizer = "sgd" if any(row.optimizer == "sgd" for row in rows) else rows[0].optimizer
    rows = [row for row in rows if row.optimizer == optimizer]
    methods = tuple(dict.fromkeys(row.method for row in rows))
    seeds = sorted({row.seed for row in rows})
    runs: dict[tuple[str, int], RunState] = {}
    for row in rows:
        runs.setdefault((row.method, row.seed), RunState()).rows.append(row)
    return Results(methods, seeds, max(row.stage for row in rows), runs=runs), facts


def _row(line: Mapping[str, str]) -> StageResult:
    whole = {name: int(line[name]) for name in ("seed", "stage", "steps", "epochs")}
    measured = {name: float(line[name]) for name in ("test_accuracy", "train_seconds")}
    which = {name: line[name] for name in ("optimizer", "method", "status")}
    absent = {"data": "", "model": "", "train_examples": 0, "test_loss": nan, "train_accuracy": nan}
    return StageResult(**{**absent, "method_seconds": nan, **which, **whole, **measured})  # type: ignore[arg-type]


# --- rates


def labels_by_rate(results: Results) -> dict[str, dict[float, str]]:
    """Method without its rate -> rate -> label; the rate is 0 where none is named."""
    found: dict[str, dict[float, str]] = {}
    for label in results.methods:
        method, own = own_recipe(label)
        found.setdefault(method, {})[own.get("lr", 0.0)] = label
    return found


def rates_in(rates: Mapping[str, Mapping[float, str]]) -> list[float]:
    """All rates, the lowest, the paper's, first."""
    return sorted({rate for of_one in rates.values() for rate in of_one})


def best_label(results: Results, of_one: Mapping[float, str]) -> str:
    """The label with the best mean accuracy."""
    return max(of_one.values(), key=lambda label: mean_last(results, label))


def mean_last(results: Results, label: str) -> float:
    """Mean accuracy after the last stage, a share; 0 if no run came that far."""
    return statistics.fmean(Row.of(results, label).last_metric or [0.0])


def between(facts: Facts, ours: str, theirs: str) -> Estimate | None:
    """The difference of two methods that was kept; None where there is none."""
    pairs = (one.get("estimate") for one in facts["differences"] if (one["of"], one["to"]) == (ours, theirs))
    return as_estimate(next(pairs, None))


def as_estimate(found: Facts | None) -> Estimate | None:
    """An estimate that was kept; None for none, and an empty one."""
    return Estimate(**found) if found else None


def short(method: str) -> str:
    """The name that tables and figures give a method."""
    return {RULE: "isometric shrinking", **dict.fromkeys(CONTROLS, "uniform shrinking")}.get(method, method)
