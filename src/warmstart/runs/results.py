"""What a comparison has measured: one row a stage, and which test examples each run got right."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StageResult:
    """One row of ``results.csv``: one stage of one run. Accuracies are in [0, 1]."""

    data: str
    model: str
    optimizer: str
    method: str
    seed: int
    stage: int
    """From 1."""
    train_examples: int
    """All examples seen so far, the new ones included."""
    test_accuracy: float
    test_loss: float
    train_accuracy: float
    """Mean over the last epoch's batches, measured while training."""
    steps: int
    """Optimizer updates until the stopping rule held."""
    epochs: int
    train_seconds: float
    method_seconds: float
    """What the method itself cost."""
    recalibrated_test_accuracy: float = float("nan")
    """Test accuracy with batch-norm statistics recomputed on the training data; NaN without batch norm."""
    status: str = "done"
    """``done``; ``diverged``: the loss became non-finite; ``max-epochs``: the stopping rule never held."""


COLUMNS = tuple(f.name for f in fields(StageResult))


@dataclass
class Results:
    """A comparison's measurements, complete or partial."""

    config: dict[str, Any]
    """What ``config.yaml`` holds: data, model, methods, seeds, stages, versions, ..."""
    rows: list[StageResult] = field(default_factory=list)
    scores: dict[tuple[str, int], NDArray[np.float32]] = field(default_factory=dict)
    """(method, seed) -> each test example's score after the last stage, in [0, 1]: 1 right, 0 wrong."""
    reports: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)
    """(method, seed, stage) -> what the method reported (``Report.to_dict()``)."""
    metric: str = "accuracy"
    """What ``test_accuracy`` and ``scores`` measure; shown in percent only where it is accuracy."""
    higher_is_better: bool = True

    @property
    def methods(self) -> list[str]:
        """The methods in the order they were asked for, then any other that has rows."""
        return list(dict.fromkeys([*self.config.get("methods", []), *(row.method for row in self.rows)]))

    @property
    def seeds(self) -> list[int]:
        """The seeds asked for (a count N means 0 to N-1), and any other that has rows."""
        asked = self.config.get("seeds", [])
        asked = range(asked) if isinstance(asked, int) else asked
        return sorted({*asked, *(row.seed for row in self.rows)})

    @property
    def stages(self) -> int:
        """How many stages a complete run has."""
        return max([int(self.config.get("stages", 0)), *(row.stage for row in self.rows)])

    def diverged(self, method: str) -> list[int]:
        """The seeds with which a method's training diverged.

        Args:
            method: The method's name with its settings.

        Returns:
            The seeds, in order.
        """
        return sorted({row.seed for row in self.select(method) if _broken(row)})

    def finished(self, method: str) -> dict[int, list[StageResult]]:
        """The runs of one method that reached the last stage and did not diverge.

        Args:
            method: The method's name with its settings.

        Returns:
            The rows of each such run, in order of stage, by seed.
        """
        stages = self.stages
        runs = {seed: self.select(method, seed=seed) for seed in self.seeds}
        return {
            seed: rows
            for seed, rows in runs.items()
            if rows and len(rows) == stages and not any(_broken(row) for row in rows)
        }

    def select(self, method: str, *, seed: int | None = None, stage: int | None = None) -> list[StageResult]:
        """The rows of one method, in order of seed and stage.

        Args:
            method: The method's name with its settings, as in ``results.csv``.
            seed: Only this seed's.
            stage: Only this stage's, counted from 1.

        Returns:
            The matching rows.
        """
        found = [
            row
            for row in self.rows
            if row.method == method and (seed is None or row.seed == seed) and (stage is None or row.stage == stage)
        ]
        return sorted(found, key=lambda row: (row.seed, row.stage))


def _broken(row: StageResult) -> bool:
    return row.status == "diverged" or not math.isfinite(row.test_accuracy)


def to_csv(rows: Iterable[StageResult]) -> str:
    """The text of ``results.csv``.

    Args:
        rows: The rows, written in the order given.

    Returns:
        A header and one line a row, floats in their shortest exact form.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([getattr(row, column) for column in COLUMNS])
    return text.getvalue()
