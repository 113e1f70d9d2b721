"""Hare & Tortoise: after every update  slow <- momentum slow + (1 - momentum) fast;  now and then  fast <- slow

Lee, Cho, Kim, Kim, Min, Choo and Lyle, Slow and Steady Wins the Race: Maintaining Plasticity with Hare and Tortoise
Networks, ICML 2024 (arXiv 2406.02596). Parameters and buffers take part, the optimizer's state goes on. As in the
authors' code the fast network returns after a stage's first epoch, and every so many epochs after it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from warmstart.methods.method import Method, Stage
from warmstart.methods.report import Report
from warmstart.network import tensors_of
from warmstart.setting import Options, Setting
from warmstart.undo import all_or_nothing, keep, on_failure
from warmstart.wording import counted

NETWORKS = ("slow", "fast")


@dataclass(frozen=True)
class HareTortoise(Method):
    """Go on with a fast network that returns to its slow average; the slow one is measured and served."""

    momentum: Annotated[
        float,
        Setting(
            "What the slow network keeps of itself at each update",
            at_least=0,
            below=1,
            search=Options((0.99, 0.997, 0.999, 0.9997)),
        ),
    ] = 0.999
    epochs: Annotated[
        int,
        Setting(
            "Epochs between returns, the first of them after a stage's first epoch, where the loop knows epochs",
            at_least=1,
            search=Options((1, 3, 10, 30)),
        ),
    ] = 10
    updates: Annotated[
        int | None,
        Setting(
            "Updates between returns instead; give it in loops of your own, where nobody knows the epoch", at_least=1
        ),
    ] = None
    measure: Annotated[
        Literal["slow", "fast"], Setting("The network that is measured and served; the paper evaluates both")
    ] = "slow"

    name: ClassVar[str] = "hare-tortoise"
    summary: ClassVar[str] = "go on with a fast network that returns to its slow average, which is measured"
    source: ClassVar[str] = "Lee et al., ICML 2024, arXiv 2406.02596"
    year: ClassVar[int] = 2024
    acts: ClassVar[str] = "after each update"
    cost: ClassVar[str] = "a copy of the network, one addition an update"
    limits: ClassVar[str] = "stages of few updates: the slow network is still the first; sharded weights"
    page: ClassVar[str] = "regularising.md#hare--tortoise"

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Say how often the fast network returns; the slow one goes on, or begins as a copy of the network."""
        _begin(model, stage)
        report = Report(self.name, self.settings(), notes=(f"nothing changed; the {self.measure} network is measured",))
        if self.updates is not None:
            return report.with_notes(f"the fast network returns to the slow one every {self.updates:,} updates")
        if stage.updates_per_epoch is not None:
            often = f"after the first epoch and every {counted(self.epochs, 'epoch')} from there"
            return report.with_notes(f"the fast network returns to the slow one {often}")
        return report.with_warnings(
            "the fast network never returns to the slow one: the length of an epoch is not known here; write "
            "hare-tortoise[updates=N]"
        )

    def after_backward(self, model: nn.Module, stage: Stage) -> None:
        """Before the very first update, begin the slow network as a copy."""
        _begin(model, stage)

    @torch.no_grad()
    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Slow <- momentum slow + (1 - momentum) fast; where it is due, fast <- a copy of slow."""
        slow, fast = _pairs(model, stage.state)
        torch._foreach_lerp_(slow, fast, 1 - self.momentum)
        if self._is_due(stage):
            _return_(model, stage.state)

    @torch.no_grad()
    def measured(self, model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
        """The slow network, in memory of its own."""
        if self.measure == "fast" or not state:
            return model
        slow = copy.deepcopy(model)
        _return_(slow, state)
        return slow

    def _is_due(self, stage: Stage) -> bool:
        """Whether the fast network returns after this update: the last of epochs 1, 1 + epochs, 1 + 2 epochs, …"""
        done, epoch = stage.step + 1, stage.updates_per_epoch
        if self.updates is not None:
            return done % self.updates == 0
        return epoch is not None and (done - epoch) % (self.epochs * epoch) == 0


def _begin(model: nn.Module, stage: Stage) -> None:
    """Copy the network into the state, unless that has been done; half precision in fp32, where 0.001 still counts."""
    if stage.state:
        return
    on_failure(stage.state.clear)
    wide = {name: torch.promote_types(tensor.dtype, torch.float32) for name, tensor in tensors_of(model).items()}
    stage.state.update(
        {
            name: tensor.detach().to(wide[name] if tensor.is_floating_point() else tensor.dtype, copy=True)
            for name, tensor in tensors_of(model).items()
        }
    )


def _pairs(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors of the slow and of the fast network that are averaged; what cannot be, such as a counter, is copied."""
    slow, fast = [], []
    for name, tensor in tensors_of(model).items():
        if tensor.is_floating_point() or tensor.is_complex():
            slow.append(state[name])
            fast.append(tensor.detach().to(state[name].dtype))
        else:
            state[name].copy_(tensor)
    return slow, fast


@all_or_nothing
@torch.no_grad()
def _return_(model: nn.Module, slow: Mapping[str, Tensor]) -> None:
    """Fast <- a copy of slow, in the fast network's own memory."""
    tensors = tensors_of(model)
    keep(tensors.values())
    for name, tensor in tensors.items():
        tensor.copy_(slow[name])
