"""The state of a run beside its weights and optimizer, as a checkpoint holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from warmstart.errors import OtherVersionError
from warmstart.runs.stage_result import StageResult
from warmstart.training.loop import Progress

SCORES, _OF_METHOD = "scores", "method."
"""Names of a checkpoint's tensors: the last scores, and the prefix of the method's own."""


@dataclass
class RunState:
    """All that a run needs in order to resume, beside weights and optimizer."""

    rows: list[StageResult] = field(default_factory=list)
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Stage -> what the method reported (``Report.to_dict()``)."""
    scores: Tensor | None = None
    """Of the last stage that is done, on the test set of the next one while that is trained."""
    test_set: str = ""
    """Which examples were scored."""
    inside: Progress | None = None
    """Progress within the next stage, if it was saved while training."""
    method_seconds: float = 0.0
    """What the method cost in that stage."""
    diagnoses: dict[int, list[tuple[str, str, float]]] = field(default_factory=dict)
    """Stage -> (measure, layer, value), of the network that the stage began with, if it was asked for."""
    redrawn: tuple[int, int] | None = None
    """Stage and number of the draw that this network began as, if not as the run's first one."""
    of_method: dict[str, Tensor] = field(default_factory=dict)
    """The method's own tensors, by its names."""

    @property
    def next_stage(self) -> int:
        """The number of the stage that is trained next."""
        return len(self.rows) + 1

    @property
    def diverged(self) -> bool:
        """Whether training ended with a loss that is not finite."""
        return bool(self.rows) and self.rows[-1].status == "diverged"

    def is_over(self, stages: int) -> bool:
        """Whether a run of this many stages is complete, or has ended before."""
        return len(self.rows) == stages or (bool(self.rows) and self.rows[-1].ends_run)

    def to_metadata(self) -> dict[str, Any]:
        """Plain values for a checkpoint: all but tensors."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "reports": {str(stage): report for stage, report in self.reports.items()},
            "inside": None if self.inside is None else dataclasses.asdict(self.inside),
            "method_seconds": self.method_seconds,
            "test_set": self.test_set,
            "diagnoses": {str(stage): values for stage, values in self.diagnoses.items()},
            "redrawn": self.redrawn,
        }

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors for a checkpoint, by their names there."""
        scores = {} if self.scores is None else {SCORES: self.scores}
        return {**scores, **{_OF_METHOD + name: tensor for name, tensor in self.of_method.items()}}

    @classmethod
    def from_saved(cls, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RunState:
        """The inverse of `to_metadata` and `to_tensors`; OtherVersionError if one wrote them in another form."""
        try:
            return cls(  # tensors that are not needed may be missing
                rows=[StageResult(**row) for row in metadata["rows"]],
                reports={int(stage): report for stage, report in metadata["reports"].items()},
                scores=tensors.get(SCORES),
                inside=None if metadata["inside"] is None else Progress(**metadata["inside"]),
                method_seconds=metadata["method_seconds"],
                test_set=metadata["test_set"],
                diagnoses={
                    int(stage): [tuple(one) for one in values] for stage, values in metadata["diagnoses"].items()
                },
                redrawn=None if metadata.get("redrawn") is None else tuple(metadata["redrawn"]),
                of_method={
                    name.removeprefix(_OF_METHOD): tensor
                    for name, tensor in tensors.items()
                    if name.startswith(_OF_METHOD)
                },
            )
        except (KeyError, TypeError) as error:
            raise OtherVersionError(
                f"the checkpoint of {metadata.get('run', 'a run')} was written by another version of warmstart, in "
                "another form; use that version, or begin in another folder"
            ) from error
