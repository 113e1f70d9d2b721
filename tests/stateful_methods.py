"""Two methods that together use everything a method may: state, rates, moments, activations, another network measured.

They are made up, to hold the contract: nobody trains by them.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

import warmstart as ws


def tensors_of(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@dataclass(frozen=True)
class SlowCopy(ws.Method):
    """slow <- 0.9 slow + 0.1 fast after each update, which is measured; the rate is raised at first."""

    factor: float = 3.0
    """Of the rate, at a stage's first update; half of what it adds is left after 8 updates."""

    name: ClassVar[str] = "slow-copy"

    def after_backward(self, model, stage):
        for group in stage.optimizer.param_groups:
            group["lr"] *= 1 + (self.factor - 1) * 0.5 ** (stage.step / 8)

    @torch.no_grad()
    def after_step(self, model, stage):
        for name, fast in tensors_of(model).items():
            slow = stage.state.setdefault(name, fast.detach().clone())
            if fast.is_floating_point():
                slow.lerp_(fast, 0.1)
            else:
                slow.copy_(fast)

    @torch.no_grad()
    def measured(self, model, state):
        slow = copy.deepcopy(model)
        for name, tensor in tensors_of(slow).items():
            tensor.copy_(state.get(name, tensor))
        return slow


@dataclass(frozen=True)
class AgeAndRedraw(ws.Method):
    """Learned slopes for ReLUs; every few updates the unit of each layer that was quiet for longest is redrawn."""

    every: int = 3
    """Updates."""

    name: ClassVar[str] = "age-and-redraw"
    sees_activations: ClassVar[bool] = True

    def prepare(self, model):
        for layer in model.modules():
            for name, child in layer.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(layer, name, nn.PReLU())

    def on_new_data(self, model, stage):
        for ages in stage.state.values():
            ages.zero_()
        return ws.Report(self.name, self.settings(), notes=(f"{len(stage.units())} layers' units are young again",))

    @torch.no_grad()
    def after_step(self, model, stage):
        for units in stage.units():
            if not (units.redrawable and units.private and units.layer in stage.activations):
                continue
            loud = stage.activations[units.layer].abs().mean(0)
            ages = stage.state.setdefault(f"ages of {units.layer}", torch.zeros_like(loud))
            ages.add_(1).mul_(loud <= loud.mean())
            if stage.step % self.every == self.every - 1:
                oldest = (ages + loud.neg().sigmoid()).argmax().reshape(1)
                self.redraw(model, units, oldest, stage)
                ages[oldest] = 0

    def redraw(self, model, units, chosen, stage):
        """Incoming weights fresh, bias and outgoing weights 0, and the moments of exactly these elements 0."""
        tensors = dict(model.named_parameters())
        for part in units.incoming:
            shape = part.of(tensors[part.name], chosen).shape
            drawn = torch.randn(shape, generator=stage.generator) / shape[1:].numel() ** 0.5
            part.copy_(tensors[part.name], chosen, drawn)
        others = [*units.outgoing] if units.bias is None else [units.bias, *units.outgoing]
        for part in others:
            part.fill_(tensors[part.name], chosen, 0.0)
        for part in (*units.incoming, *others):
            for moment in stage.optimizer.state.get(tensors[part.name], {}).values():
                if isinstance(moment, torch.Tensor) and moment.shape == tensors[part.name].shape:
                    part.fill_(moment, chosen, 0.0)


@dataclass(frozen=True)
class Draws(ws.Method):
    """Draws networks while it trains, which is refused."""

    name: ClassVar[str] = "draws"

    @torch.no_grad()
    def after_step(self, model, stage):
        if stage.step % 3 == 2:
            for parameter, fresh in zip(model.parameters(), stage.fresh().parameters(), strict=True):
                parameter.lerp_(fresh, 0.01)


METHODS = ("stateful_methods:SlowCopy", "stateful_methods:AgeAndRedraw")
"""As on the command line."""
