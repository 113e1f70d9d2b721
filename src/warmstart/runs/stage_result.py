"""One row of results.csv: a field is a column, of the file, the checkpoint and the trackers alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields


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
    """``done``; ``diverged``: the loss became non-finite; ``max-epochs``: the stopping rule never held; ``plateau``:
    accuracy and loss had stopped improving before it did; ``given-up``: ``max-epochs`` in a trial of tuning, which has
    failed by that."""
    old_accuracy: float = float("nan")
    """On training examples of earlier stages, at most 2000; NaN in the first stage."""
    new_accuracy: float = float("nan")
    """On examples that arrived with the stage, likewise."""
    newly_wrong: float = float("nan")
    """Churn: the share of test examples that are wrong now and were right before the stage; NaN in the first one."""
    newly_right: float = float("nan")
    """The share that is right now and was wrong."""
    train_joules: float = float("nan")
    """Energy that training took, where the device counts it; NaN elsewhere."""

    @property
    def ends_run(self) -> bool:
        """Whether no later stage is trained."""
        return self.status in ("diverged", "given-up")


COLUMNS = tuple(column.name for column in fields(StageResult))
WHICH = ("data", "model", "optimizer", "method", "seed", "stage", "status")
"""The columns that identify a row's run and stage, and its outcome; the others are its numbers."""
NUMBERS = tuple(name for name in COLUMNS if name not in WHICH)


def to_csv(rows: Iterable[StageResult]) -> str:
    """The text of ``results.csv``: a header and one line a row, floats in their shortest exact form."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([getattr(row, column) for column in COLUMNS])
    return text.getvalue()
