"""How far a run has come, beside its weights and optimizer; and reading that of runs which are not at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from warmstart.runs.key import RunKey
from warmstart.runs.stage_result import StageResult
from warmstart.storage import checkpoint
from warmstart.training.loop import Progress

CHECKPOINT = "checkpoint.safetensors"
_SCORES, _OF_METHOD = "scores", "method."
"""What a run's tensors are called there: the last scores, and, behind a prefix, what the method keeps."""


@dataclass
class RunState:
    """All that a run needs in order to go on, beside weights and optimizer."""

    rows: list[StageResult] = field(default_factory=list)
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Stage -> what the method reported (``Report.to_dict()``)."""
    scores: Tensor | None = None
    """Of the last stage that is done."""
    inside: Progress | None = None
    """How far the next stage has come, if it was saved while training."""
    method_seconds: float = 0.0
    """What the method cost in the stage that is inside."""
    fresh_draws: int = 0
    """Networks that the method has drawn in that stage."""
    of_method: dict[str, Tensor] = field(default_factory=dict)
    """What the method itself keeps, by its own names."""

    @property
    def next_stage(self) -> int:
        """The number of the stage that is trained next."""
        return len(self.rows) + 1

    @property
    def diverged(self) -> bool:
        """Whether training ended with a loss that is not finite."""
        return bool(self.rows) and self.rows[-1].status == "diverged"

    def is_over(self, stages: int) -> bool:
        """Whether there is nothing left to do.

        Args:
            stages: Of a complete run.

        Returns:
            Whether it has come to its last stage, or diverged.
        """
        return len(self.rows) == stages or self.diverged

    def to_metadata(self) -> dict[str, Any]:
        """Plain values for a checkpoint: all but tensors."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "reports": {str(stage): report for stage, report in self.reports.items()},
            "inside": None if self.inside is None else dataclasses.asdict(self.inside),
            "method_seconds": self.method_seconds,
            "fresh_draws": self.fresh_draws,
        }

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors for a checkpoint, by the names that they have there."""
        scores = {} if self.scores is None else {_SCORES: self.scores}
        return {**scores, **{_OF_METHOD + name: tensor for name, tensor in self.of_method.items()}}

    @classmethod
    def from_saved(cls, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RunState:
        """Undo `to_metadata` and `to_tensors`.

        Args:
            metadata: What the first one returned.
            tensors: What the second one returned, or as much of it as is needed.

        Returns:
            An equal state.
        """
        return cls(
            rows=[StageResult(**row) for row in metadata["rows"]],
            reports={int(stage): report for stage, report in metadata["reports"].items()},
            scores=tensors.get(_SCORES),
            inside=None if metadata["inside"] is None else Progress(**metadata["inside"]),
            method_seconds=metadata["method_seconds"],
            fresh_draws=metadata.get("fresh_draws", 0),
            of_method={
                name.removeprefix(_OF_METHOD): tensor for name, tensor in tensors.items() if name.startswith(_OF_METHOD)
            },
        )


def saved_runs(keys: Sequence[RunKey], out: Path) -> dict[RunKey, RunState]:
    """What has been saved of some runs, read without their weights and what their methods keep.

    Args:
        keys: Which runs.
        out: The grid's folder.

    Returns:
        The state of each run that has a checkpoint.
    """
    found = {}
    for key in keys:
        file = key.folder(out) / CHECKPOINT
        if file.exists():
            scores = {_SCORES + rest: t for rest, t in checkpoint.read_tensors(file, f"tensors.{_SCORES}").items()}
            found[key] = RunState.from_saved(checkpoint.read_metadata(file), scores)
    return found
