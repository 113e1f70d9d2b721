"""What a grid has measured: all rows, and which test examples each run got right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from warmstart.runs.metric import ACCURACY, Metric
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState


@dataclass(frozen=True)
class Results:
    """A grid's measurements with one optimizer, complete or partial."""

    methods: Sequence[str]
    """In the order in which they were asked for."""
    seeds: Sequence[int]
    stages: int
    """Of a complete run."""
    metric: Metric = ACCURACY
    """What ``test_accuracy`` and the runs' scores measure."""
    runs: Mapping[tuple[str, int], RunState] = field(default_factory=dict)
    """(method, seed) -> what was measured of it, in the order of the methods."""

    @property
    def rows(self) -> list[StageResult]:
        """All rows, run by run."""
        return [row for run in self.runs.values() for row in run.rows]

    def diverged(self, method: str) -> list[int]:
        """The seeds, in order, with which a method's training diverged."""
        return sorted({row.seed for row in self.select(method) if _broken(row)})

    def finished(self, method: str) -> dict[int, list[StageResult]]:
        """By seed, the rows of the runs of one method that reached the last stage and did not diverge."""
        runs = ((seed, self.runs.get((method, seed), RunState()).rows) for seed in self.seeds)
        return {seed: rows for seed, rows in runs if len(rows) == self.stages and not any(_broken(row) for row in rows)}

    def are_over(self, seeds: int) -> bool:
        """Whether all runs of the first so many seeds have reached the last stage or diverged."""
        over = {key for key, run in self.runs.items() if run.is_over(self.stages)}
        first = self.seeds[:seeds]
        return len(first) == seeds and all((method, seed) in over for method in self.methods for seed in first)

    def of_first(self, seeds: int) -> Results:
        """The measurements of the first so many seeds alone."""
        kept = self.seeds[:seeds]
        return replace(self, seeds=kept, runs={key: run for key, run in self.runs.items() if key[1] in kept})

    def under(self, names: Mapping[str, str]) -> Results:
        """The measurements of some methods under other names: name -> what the method is called here."""
        runs = {
            (name, seed): replace(run, rows=[replace(row, method=name) for row in run.rows])
            for name, old in names.items()
            for (method, seed), run in self.runs.items()
            if method == old
        }
        return replace(self, methods=tuple(names), runs=runs)

    def select(self, method: str, *, seed: int | None = None, stage: int | None = None) -> list[StageResult]:
        """The rows of one method, of one seed or stage if given, in order of seed and stage."""
        return [
            row
            for name, of in sorted(self.runs)
            if name == method and seed in (None, of)
            for row in self.runs[name, of].rows
            if stage in (None, row.stage)
        ]


def _broken(row: StageResult) -> bool:
    return row.status == "diverged" or not math.isfinite(row.test_accuracy)
