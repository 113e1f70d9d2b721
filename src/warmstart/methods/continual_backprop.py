"""Continual backprop:  u_i <- decay u_i + (1 - decay) mean |h_i| mean_k |w_ki|,  the least useful units are redrawn

After every update, a unit that is older than `maturity` updates is eligible. rate x (eligible units) adds up in each
layer, and its whole part of them is redrawn, lowest u_i / (1 - decay^age) first, as the layer was first drawn.

Dohare et al., Loss of plasticity in deep continual learning, Nature 2024: its contribution utility. (That of the 2021
preprint, arXiv 2108.06325, |h_i - mean h_i| |w_out| / |w_in|, is not offered.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from warmstart.layers.units import Units
from warmstart.methods.method import Method, Stage
from warmstart.methods.redrawing import described, redraw_, remembered, seen
from warmstart.methods.report import Report
from warmstart.setting import Range, Setting
from warmstart.undo import all_or_nothing


@dataclass(frozen=True)
class ContinualBackprop(Method):
    """After every update, redraw a small share of the least useful units that are old enough."""

    rate: Annotated[
        float,
        Setting(
            "Share of a layer's eligible units that is redrawn at an update; what is less than one adds up",
            at_least=0,
            at_most=1,
            search=Range(1e-6, 1e-3),
        ),
    ] = 1e-4
    maturity: Annotated[
        int, Setting("Updates for which a new unit is safe", at_least=0, search=Range(100, 10_000, whole=True))
    ] = 1000
    decay: Annotated[float, Setting("Decay of the running average of utility", at_least=0, below=1)] = 0.99

    name: ClassVar[str] = "continual-backprop"
    summary: ClassVar[str] = "redraw a small share of the least useful units after every update"
    source: ClassVar[str] = "Dohare et al., Nature 2024; rate and maturity as in FIRE, arXiv 2602.08040"
    year: ClassVar[int] = 2024
    acts: ClassVar[str] = "after each update"
    cost: ClassVar[str] = "activations at each update, two numbers a unit"
    limits: ClassVar[str] = "several processes; units that a residual stream shares are left"
    page: ClassVar[str] = "redrawing.md#continual-backprop"
    sees_activations: ClassVar[bool] = True

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Say which units can be redrawn."""
        note = f"at each update {self.rate:g} of the units older than {self.maturity:,} updates are redrawn"
        return described(self, stage, note)

    @all_or_nothing
    @torch.no_grad()
    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Update the utilities, and redraw the least useful units of the layers that owe some."""
        debts = []
        for layer, h in seen(model, stage):
            age, utility, owed = _remembered(stage, layer)
            age.add_(1)
            utility.lerp_(h.abs().mean(0) * _outgoing_size(model, layer), 1 - self.decay)
            owed.add_(self.rate * (age > self.maturity).sum())
            debts.append((layer, owed))
        counts = torch.stack([owed for _, owed in debts]).long().tolist()  # waits for the device once
        due = [(layer, count) for (layer, _), count in zip(debts, counts, strict=True) if count]
        redraw_(model, stage, [(layer, self._least_useful(stage, layer, count)) for layer, count in due])

    def _least_useful(self, stage: Stage, layer: Units, count: int) -> Tensor:
        """So many units of a layer, about to be redrawn; they begin anew."""
        age, utility, owed = _remembered(stage, layer)
        corrected = utility / (1 - self.decay ** age.float())
        which = torch.where(age > self.maturity, corrected, math.inf).argsort(stable=True)[:count]
        age[which] = 0
        utility[which] = 0
        owed.sub_(count)
        return which


def _remembered(stage: Stage, layer: Units) -> tuple[Tensor, Tensor, Tensor]:
    """Age and utility of each unit, and how many units the layer owes."""
    return (
        remembered(stage, layer, "age", (layer.count,), dtype=torch.long),
        remembered(stage, layer, "utility", (layer.count,)),
        remembered(stage, layer, "owed", ()),
    )


def _outgoing_size(model: nn.Module, layer: Units) -> Tensor:
    """The mean |w| of each unit's outgoing weights."""
    weights = [part.of(model.get_parameter(part.name)).flatten(1) for part in layer.outgoing]
    return torch.cat(weights, 1).float().abs().mean(1)
