"""ReDo:  s_i = mean |a_i| / mean_k mean |a_k|,  and a unit with s_i <= tau is dormant: it is redrawn

The means run over a batch and its positions, then over the layer's units. Sokar, Agarwal, Castro and Evci, The Dormant
Neuron Phenomenon in Deep Reinforcement Learning, ICML 2023 (arXiv 2302.12902).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from warmstart.methods.method import Method, Stage
from warmstart.methods.redrawing import described, redraw_, seen
from warmstart.methods.report import Report
from warmstart.setting import Range, Setting
from warmstart.undo import all_or_nothing
from warmstart.wording import counted


@dataclass(frozen=True)
class Redo(Method):
    """Redraw dormant units at a stage's first update, and every so many updates after it."""

    tau: Annotated[
        float,
        Setting(
            "Share of the layer's mean activity at or below which a unit is dormant",
            at_least=0,
            search=Range(0.01, 0.5),
        ),
    ] = 0.025
    every: Annotated[
        int,
        Setting(
            "Updates from one look to the next; the run's first update is left out, since nothing has been learned yet",
            at_least=1,
            search=Range(50, 2000, whole=True),
        ),
    ] = 1000

    name: ClassVar[str] = "redo"
    summary: ClassVar[str] = "redraw dormant units, whose activity is below a share of their layer's"
    source: ClassVar[str] = "ReDo, Sokar et al., ICML 2023, arXiv 2302.12902"
    year: ClassVar[int] = 2023
    acts: ClassVar[str] = "at a stage's start, and every 1000 updates"
    cost: ClassVar[str] = "activations at each update"
    limits: ClassVar[str] = "several processes; units that a residual stream shares are left"
    page: ClassVar[str] = "redrawing.md#redo"
    sees_activations: ClassVar[bool] = True

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Say which units can be redrawn."""
        note = f"dormant units are redrawn at the first update and every {counted(self.every, 'update')} after it"
        return described(self, stage, note)

    @all_or_nothing
    @torch.no_grad()
    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Redraw the dormant units, if it is time."""
        if stage.step % self.every or (stage.number == 1 and stage.step == 0):
            return
        redraw_(model, stage, [(layer, self._dormant(a)) for layer, a in seen(model, stage)])

    def _dormant(self, a: Tensor) -> Tensor:
        """The numbers of a layer's dormant units, given its activations (rows, units)."""
        activity = a.abs().mean(0)
        return (activity <= self.tau * activity.mean()).nonzero().flatten()
