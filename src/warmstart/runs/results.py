"""What a grid has measured: all rows, and which test examples each run got right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    reports: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)
    """(method, seed, stage) -> what the method reported (``Report.to_dict()``)."""

    def add(self, key: RunKey, run: RunState) -> None:
        """Add the measurements of a run."""
        self.rows += run.rows
        self.reports |= {(key.method, key.seed, stage): report for stage, report in run.reports.items()}
        if run.scores is not None:
            self.scores[key.method, key.seed] = run.scores.float().numpy()

    def diverged(self, method: str) -> list[int]:
        """The seeds, in order, with which a method's training diverged."""
        return sorted({row.seed for row in self.select(method) if _broken(row)})

    def finished(self, method: str) -> dict[int, list[StageResult]]:
        """By seed, the rows of the runs of one method that reached the last stage and did not diverge."""
        stages = self.stages
        runs = {seed: self.select(method, seed=seed) for seed in self.seeds}
        return {
            seed: rows
            for seed, rows in runs.items()
            if rows and len(rows) == stages and not any(_broken(row) for row in rows)
        }

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
