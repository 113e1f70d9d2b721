"""What becomes of optimizer, learning-rate schedule and batch-norm statistics when a method changes the weights.

The paper keeps all three; each can be said otherwise, and the report has a line on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from warmstart.errors import InputError, nearest
from warmstart.methods.method import reset_optimizer_
from warmstart.neurons import Neurons, batch_norms
from warmstart.processes import local

OptimizerState = Literal["keep", "reset", "scale"]
Schedule = Literal["keep", "restart"]
BatchNorm = Literal["keep", "recalibrate"]

_SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta"}
"""Moments in units of the squared gradient (Adam, RMSprop, Adagrad, Adadelta): they scale with the square."""


@dataclass(frozen=True)
class StatePolicy:
    """What becomes of the state around the weights; the defaults are the paper's."""

    optimizer: Optimizer | None = None
    optimizer_state: OptimizerState = "keep"
    scheduler: LRScheduler | None = None
    schedule: Schedule = "keep"
    batch_norm: BatchNorm = "keep"

    def check(self, entries: Iterable[Neurons]) -> None:
        """Refuse what cannot be done, before anything changes.

        Args:
            entries: The parameters that will be scaled.

        Raises:
            InputError: If a choice is unknown, what it acts on is missing, or moments cannot be scaled.
        """
        for key, options in (
            ("optimizer_state", ("keep", "reset", "scale")),
            ("schedule", ("keep", "restart")),
            ("batch_norm", ("keep", "recalibrate")),
        ):
            if getattr(self, key) not in options:
                raise InputError(f"{key} is '{getattr(self, key)}'{nearest(str(getattr(self, key)), options)}")
        if self.optimizer_state != "keep" and self.optimizer is None:
            raise InputError(f"optimizer_state='{self.optimizer_state}' needs optimizer=")
        if self.schedule != "keep" and not hasattr(self.scheduler, "_initial_step"):
            raise InputError("schedule='restart' needs scheduler=, one of torch.optim.lr_scheduler's")
        if self.optimizer_state == "scale":
            for entry in entries:
                self._scalable(entry)

    def apply_(self, scales: Iterable[tuple[Neurons, Tensor]]) -> tuple[str, str]:
        """Do to optimizer and schedule what was chosen, in place.

        Args:
            scales: The parameters and the factors of their neurons.

        Returns:
            A sentence on each.
        """
        if self.optimizer is not None and self.optimizer_state == "reset":
            reset_optimizer_(self.optimizer)
        if self.optimizer_state == "scale":
            for entry, scale in scales:
                for name, moment in self._scalable(entry).items():
                    entry.view(local(moment)).mul_(scale.square() if name in _SQUARES else scale)
        if self.scheduler is not None and self.schedule == "restart":
            restart_schedule_(self.scheduler)
        return (
            {"keep": "kept", "reset": "reset", "scale": "scaled with its neurons"}[self.optimizer_state],
            {"keep": "kept", "restart": "restarted"}[self.schedule],
        )

    def _scalable(self, entry: Neurons) -> Mapping[str, Tensor]:
        """The moments of a parameter, by name."""
        assert self.optimizer is not None
        state = self.optimizer.state.get(entry.parameter, {})
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.dim() > 0}
        for name, value in tensors.items():
            if value.shape != entry.parameter.shape:
                raise InputError(
                    f"{type(self.optimizer).__name__} keeps {name} of {entry.name} in another shape, which cannot be "
                    "scaled neuron by neuron: use optimizer_state='reset' or 'keep'"
                )
        return tensors


@torch.no_grad()
def restart_schedule_(scheduler: LRScheduler) -> None:
    """Put a learning-rate schedule back to its first step, in place.

    Args:
        scheduler: One of torch.optim.lr_scheduler's; its optimizer gets the initial learning rates.
    """
    for group, lr in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
        group["lr"] = group["initial_lr"] = lr
    scheduler.last_epoch = -1
    scheduler._initial_step()


@torch.no_grad()
def recalibrate_(model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any]) -> int:
    """Measure batch-norm statistics anew, as the plain average over some batches, in place.

    Args:
        model: The network; its running statistics change, its weights and training flags do not.
        batches: Batches where the network is.
        forward: ``forward(model, batch)`` runs the network.

    Returns:
        How many layers were measured.
    """
    norms = [layer for layer in batch_norms(model) if layer.track_running_stats]
    training = {layer: layer.training for layer in model.modules()}
    momenta = [layer.momentum for layer in norms]
    try:
        model.eval()
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        for batch in batches:
            forward(model, batch)
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for module, flag in training.items():
            module.training = flag
    return len(norms)
