"""What a grid has measured: all rows, and which test examples each run got right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.runs.key import RunKey
from warmstart.runs.metric import ACCURACY, Metric
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState


@dataclass
class Results:
    """A grid's measurements with one optimizer, complete or partial."""

    methods: Sequence[str]
    """In the order in which they were asked for."""
    seeds: Sequence[int]
    stages: int
    """Of a complete run."""
    metric: Metric = ACCURACY
    """What ``test_accuracy`` and ``scores`` measure."""
    rows: list[StageResult] = field(default_factory=list)
    scores: dict[tuple[str, int], NDArray[np.float32]] = field(default_factory=dict)
    """(method, seed) -> each test example's score after the last stage, in [0, 1]: 1 right, 0 wrong."""
    test_sets: dict[tuple[str, int], str] = field(default_factory=dict)
    """(method, seed) -> which test examples; equal texts where they are the same. Empty: all seeds share them."""
    diagnoses: dict[tuple[str, int, int], list[tuple[str, str, float]]] = field(default_factory=dict)
    """(method, seed, stage) -> (measure, layer, value) of the network that the stage began with."""
    reports: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)
    """(method, seed, stage) -> what the method reported (``Report.to_dict()``)."""

    def add(self, key: RunKey, run: RunState) -> None:
        """Add the measurements of a run."""
        self.rows += run.rows
        self.diagnoses |= {(key.method, key.seed, stage): values for stage, values in run.diagnoses.items()}
        self.reports |= {(key.method, key.seed, stage): report for stage, report in run.reports.items()}
        if run.scores is not None:
            self.scores[key.method, key.seed] = run.scores.float().numpy()
            self.test_sets[key.method, key.seed] = run.test_set

    def diverged(self, method: str) -> list[int]:
        """The seeds, in order, with which a method's training diverged."""
        return sorted({row.seed for row in self.select(method) if _broken(row)})

    def finished(self, method: str) -> dict[int, list[StageResult]]:
        """By seed, the rows of the runs of one method that reached the last stage and did not diverge."""
        runs: dict[int, list[StageResult]] = {seed: [] for seed in self.seeds}
        for row in self.select(method):
            if row.seed in runs:
                runs[row.seed].append(row)
        return {
            seed: rows
            for seed, rows in runs.items()
            if rows and len(rows) == self.stages and not any(_broken(row) for row in rows)
        }

    def are_over(self, seeds: int) -> bool:
        """Whether all runs of the first so many seeds have reached the last stage or diverged."""
        over = {(row.method, row.seed) for row in self.rows if row.stage == self.stages or row.status == "diverged"}
        first = self.seeds[:seeds]
        return len(first) == seeds and all((method, seed) in over for method in self.methods for seed in first)

    def of_first(self, seeds: int) -> Results:
        """The measurements of the first so many seeds alone."""
        kept = self.seeds[:seeds]
        return replace(
            self,
            seeds=kept,
            rows=[row for row in self.rows if row.seed in kept],
            scores={key: scores for key, scores in self.scores.items() if key[1] in kept},
            test_sets={key: test_set for key, test_set in self.test_sets.items() if key[1] in kept},
            reports={key: report for key, report in self.reports.items() if key[1] in kept},
        )

    def under(self, names: Mapping[str, str]) -> Results:
        """The measurements of some methods under other names: name -> what the method is called here."""

        def renamed(held: Mapping[Any, Any]) -> dict[Any, Any]:
            return {(name, *key[1:]): held[key] for name, old in names.items() for key in held if key[0] == old}

        return replace(
            self,
            methods=tuple(names),
            rows=[replace(row, method=name) for name, old in names.items() for row in self.rows if row.method == old],
            scores=renamed(self.scores),
            test_sets=renamed(self.test_sets),
            diagnoses=renamed(self.diagnoses),
            reports=renamed(self.reports),
        )

    def select(self, method: str, *, seed: int | None = None, stage: int | None = None) -> list[StageResult]:
        """The rows of one method, of one seed or stage if given, in order of seed and stage."""
        found = [
            row
            for row in self.rows
            if row.method == method and (seed is None or row.seed == seed) and (stage is None or row.stage == stage)
        ]
        return sorted(found, key=lambda row: (row.seed, row.stage))


def _broken(row: StageResult) -> bool:
    return row.status == "diverged" or not math.isfinite(row.test_accuracy)
