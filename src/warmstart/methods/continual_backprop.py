"""Continual backprop:  u_i <- decay u_i + (1 - decay) mean |h_i| mean_k |w_ki|,  the least useful units are redrawn

After every update, a unit that is older than `maturity` updates is eligible. rate x (eligible units) adds up in each
layer, and its whole part of them is redrawn, lowest u_i / (1 - decay^age) first. The biases of the layers that read
such a unit take up what it gave on average, w_ki mean h_i, before its outgoing weights w_ki become 0.

Dohare et al., Loss of plasticity in deep continual learning, Nature 2024: its contribution utility. (That of the 2021
preprint, arXiv 2108.06325, |h_i - mean h_i| |w_out| / |w_in|, is not offered.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.errors import number, whole_number, within
from warmstart.layers.units import Units
from warmstart.methods.method import Method, Stage
from warmstart.methods.redrawing import described, fan_in, kept, redraw_, seen
from warmstart.methods.report import Report
from warmstart.undo import all_or_nothing, keep


@dataclass(frozen=True)
class ContinualBackprop(Method):
    """After every update, redraw a small share of the least useful units that are old enough."""

    rate: float = 1e-4
    """Share of a layer's eligible units that is redrawn at an update; what is less than one adds up."""
    maturity: int = 1000
    """Updates for which a new unit is safe."""
    decay: float = 0.99
    """Of the running averages of utility and activation, in [0, 1)."""

    name: ClassVar[str] = "continual-backprop"
    summary: ClassVar[str] = "redraw a small share of the least useful units after every update"
    source: ClassVar[str] = "Dohare et al., Nature 2024; rate and maturity as in FIRE, arXiv 2602.08040"
    sees_activations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("rate", number("rate", self.rate), 0 <= self.rate <= 1, "from 0 to 1")
        whole_number("maturity", self.maturity, 0)
        within("decay", number("decay", self.decay), 0 <= self.decay < 1, "at least 0 and below 1")

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Say which units can be redrawn."""
        note = f"at each update {self.rate:g} of the units older than {self.maturity:,} updates are redrawn"
        return described(self, model, stage, note)

    @all_or_nothing
    @torch.no_grad()
    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Update the utilities, and redraw the least useful units of each layer that owes some."""
        layers, debts = [], []
        for layer, h in seen(model, stage):
            age = kept(stage, layer, "age", (layer.count,), dtype=torch.long)
            utility = kept(stage, layer, "utility", (layer.count,))
            mean = kept(stage, layer, "mean activation", (layer.count,))
            owed = kept(stage, layer, "owed", ())
            age.add_(1)
            utility.lerp_(h.abs().mean(0) * _outgoing_size(model, layer), 1 - self.decay)
            mean.lerp_(h.mean(0), 1 - self.decay)
            owed.add_(self.rate * (age > self.maturity).sum())
            layers.append(layer)
            debts.append(owed)
        for layer, count in zip(layers, torch.stack(debts).long().tolist(), strict=True):  # waits for the device once
            if count:
                self._replace(model, stage, layer, count)

    def _replace(self, model: nn.Module, stage: Stage, layer: Units, count: int) -> None:
        """Redraw as many of a layer's units, and begin anew with what is kept of them."""
        age, utility, mean, owed = (
            stage.state[f"{what} of {layer.layer}"] for what in ("age", "utility", "mean activation", "owed")
        )
        corrected = 1 - self.decay ** age.float()
        ranked = torch.where(age > self.maturity, utility / corrected, math.inf).argsort(stable=True)
        chosen = ranked[:count]
        _take_up_(model, stage, layer, chosen, (mean / corrected)[chosen])
        bound = math.sqrt(2) * math.sqrt(3 / fan_in(model, layer))  # with the gain of ReLU
        redraw_(model, stage, layer, chosen, bound)
        owed.sub_(count)
        for kept_of_it in (age, utility, mean):
            kept_of_it[chosen] = 0


def _outgoing_size(model: nn.Module, layer: Units) -> Tensor:
    """The mean |w| of each unit's outgoing weights."""
    weights = [part.of(model.get_parameter(part.name)).flatten(1) for part in layer.outgoing]
    return torch.cat(weights, 1).float().abs().mean(1)


def _take_up_(model: nn.Module, stage: Stage, layer: Units, chosen: Tensor, mean: Tensor) -> None:
    """Add what units gave on average to the biases of the layers that read them."""
    for part in layer.outgoing:
        weight = model.get_parameter(part.name)
        given, values = torch.zeros_like(weight), part.of(weight, chosen)
        part.copy_(given, chosen, values * mean.to(values).reshape(-1, *[1] * (values.dim() - 1)))
        reader = model.get_submodule(part.name.rpartition(".")[0])
        for other in stage.units():
            incoming = [into for into in other.incoming if into.name == part.name]
            # A transposed convolution gives each output only some of its kernel.
            if other.bias is None or not incoming or getattr(reader, "transposed", False):
                continue
            bias, everyone = model.get_parameter(other.bias.name), torch.arange(other.count)
            keep([bias])
            shift = torch.stack([into.of(given).flatten(1).sum(1) for into in incoming]).sum(0)
            old = other.bias.of(bias, everyone)
            other.bias.copy_(bias, everyone, old + shift.reshape(-1, *[1] * (old.dim() - 1)))
