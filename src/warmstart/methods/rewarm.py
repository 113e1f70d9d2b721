"""Re-warming:  rate x (1 + (factor - 1) (1 + cos(pi t / T)) / 2) at update t of a stage's T

Raised when data arrives and let down again over the stage. Behind norm layers a weight's scale only sets the effective
rate. That is rate / ||w||^2 for SGD and SAM, so shrinking by s raises it by 1/s^2; for AdamW and Muon, whose updates do
not grow with the gradient, it is rate / ||w||, raised by 1/s. This is such methods' control without shrinking. The rate
jumps at the first update, where Ibrahim et al. (arXiv 2403.08763) climb first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn

from warmstart.methods.method import Method, Stage
from warmstart.methods.report import Report
from warmstart.setting import Range, Setting
from warmstart.undo import all_or_nothing, keep

_COUNTED = "updates_counted"
"""In the method's state: the updates of the last stage, and those of the stage under way so far."""

TOO_HIGH = 1.0
"""A raised rate that is warned of."""


@dataclass(frozen=True)
class Rewarm(Method):
    """Go on, with the learning rate raised when data arrives and let down again over the stage."""

    factor: Annotated[
        float,
        Setting(
            "What the rate is multiplied by: 1 / 0.3^2 is the partner of shrinking by 0.3 with SGD and SAM, 1 / 0.3 "
            "with AdamW and Muon",
            above=0,
            search=Range(1.5, 30),
        ),
    ] = 11.0
    updates: Annotated[
        int | None,
        Setting(
            "Over how many updates the rate falls back; None: the stage's where they are known, else the last one's",
            at_least=1,
        ),
    ] = None

    name: ClassVar[str] = "rewarm"
    summary: ClassVar[str] = "go on, with the rate raised by a factor when data arrives, falling back over the stage"
    source: ClassVar[str] = "the effective rate re-warmed: Lyle et al. 2025, arXiv 2507.20057; 2403.08763; 2510.09687"
    year: ClassVar[int] = 2025
    acts: ClassVar[str] = "before each update of a stage"
    cost: ClassVar[str] = "nothing"
    limits: ClassVar[str] = "high rates, which a factor makes diverge; schedules that begin anew"
    page: ClassVar[str] = "shrinking.md#rewarm"

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Say over how many updates the rate falls back."""
        if (counted := stage.state.get(_COUNTED)) is not None:
            keep([counted])
            counted.copy_(torch.stack([counted[1], torch.zeros_like(counted[1])]))
        report = Report(self.name, self.settings())
        if length := self._length(stage):
            report = report.with_notes(f"learning rate x {self.factor:g}, falling back over {length:,} updates")
            groups = [] if stage.optimizer is None else stage.optimizer.param_groups
            highest = self.factor * max((float(group["lr"]) for group in groups), default=0.0)
            if highest < TOO_HIGH:
                return report
            return report.with_warnings(
                f"the raised rate is {highest:.3g}, at which training usually diverges; lower the factor, or the rate"
            )
        return report.with_notes("nothing changed").with_warnings(
            "the learning rate stays: the length of a stage is not known, and no stage was trained with rewarm before; "
            "write rewarm[updates=N]"
        )

    def after_backward(self, model: nn.Module, stage: Stage) -> None:
        """Raise the rate of this update."""
        length = self._length(stage) if stage.number > 1 else 0
        if length and stage.optimizer is not None:
            for group in stage.optimizer.param_groups:
                group["lr"] = group["lr"] * self.raised(stage.step / length)

    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Count the stage's updates, for the next one."""
        stage.state[_COUNTED] = torch.tensor([_counted(stage)[0], stage.step + 1])

    def raised(self, share: float) -> float:
        """The factor after this share of the updates; 1 beyond them."""
        return 1 + (self.factor - 1) * (1 + math.cos(math.pi * min(share, 1.0))) / 2

    def _length(self, stage: Stage) -> int:
        """0 where it is not known."""
        return self.updates or stage.updates or _counted(stage)[0]


def _counted(stage: Stage) -> tuple[int, int]:
    last, own = stage.state.get(_COUNTED, (0, 0))
    return int(last), int(own)
