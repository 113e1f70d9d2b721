"""What happens to optimizer state and batch-norm statistics when a method changes the weights; the paper keeps both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.batches import equal_parts, to_device
from warmstart.errors import InputError
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import Neurons
from warmstart.layers.norms import batch_norms
from warmstart.methods.method import has_state, reset_optimizer_
from warmstart.network import eval_mode, require_optimizer, require_writable, saved_buffers
from warmstart.precision import in_fp32
from warmstart.processes import local
from warmstart.undo import afterwards, all_or_nothing, keep, on_failure

OptimizerState = Literal["keep", "reset", "scale"]
BatchNorm = Literal["keep", "recalibrate"]

_SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta"}
"""Moments in units of the squared gradient (Adam, RMSprop, Adagrad, Adadelta): they scale with the square."""


@dataclass(frozen=True)
class StatePolicy:
    """What is done to optimizer state and batch norm; the defaults are the paper's."""

    optimizer: Optimizer | None = None
    optimizer_state: OptimizerState = "keep"
    batch_norm: BatchNorm = "keep"

    def check(self, entries: Sequence[Neurons]) -> tuple[list[Neurons], list[LeftAlone]]:
        """Refuse a choice that lacks its object, or cannot be carried out.

        Returns:
            The entries that the optimizer trains, all where none is known, and those that it does not hold.

        Raises:
            InputError: If something is refused.
        """
        if self.optimizer is None:
            if self.optimizer_state != "keep":
                raise InputError(f"optimizer_state='{self.optimizer_state}' needs optimizer=")
            return list(entries), []
        require_optimizer(self.optimizer)
        held = {parameter for group in self.optimizer.param_groups for parameter in group["params"]}
        trained = [entry for entry in entries if entry.parameter in held]
        if entries and not trained:
            raise InputError("optimizer holds no parameter that is scaled: pass the one that trains this model")
        if self.optimizer_state == "scale":
            _check_moments(self.optimizer, trained)
        return trained, [LeftAlone(e.name, "not in the optimizer") for e in entries if e.parameter not in held]

    def apply_(self, scales: Iterable[tuple[Neurons, Tensor]]) -> str:
        """Change the optimizer as chosen, given the factors of neurons; returns a sentence on what was done."""
        if self.optimizer is None:
            return "optimizer and learning-rate schedule not touched"
        done = {"keep": "kept", "reset": "reset", "scale": "scaled with its neurons"}[self.optimizer_state]
        if not has_state(self.optimizer):
            done = "empty"
        if self.optimizer_state == "reset":
            reset_optimizer_(self.optimizer)
        if self.optimizer_state == "scale":
            moments = [(*each, *found) for each in scales for found in moments_of(self.optimizer, each[0].parameter)]
            keep(moment for *_, moment in moments)
            for entry, scale, name, moment in moments:
                entry.view(local(moment)).mul_(scale.square() if name in _SQUARES else scale)
            done = done if moments else "empty, so nothing to scale"
        return f"optimizer state {done}, learning-rate schedule not touched"


def _check_moments(optimizer: Optimizer, entries: Iterable[Neurons]) -> None:
    """Raise InputError for moments that cannot be scaled."""
    for entry in entries:
        for name, moment in moments_of(optimizer, entry.parameter):
            require_writable({f"{name} of {entry.name}": moment})
            if moment.shape != entry.parameter.shape or not moment.is_floating_point():
                raise InputError(
                    f"{type(optimizer).__name__} keeps {name} of {entry.name} in another shape or as integers, "
                    "which cannot be scaled neuron by neuron: use optimizer_state='reset' or 'keep'"
                )


def moments_of(optimizer: Optimizer, parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The tensors that an optimizer, or one that it wraps, holds for each weight of a parameter, by name."""
    state: Mapping[str, Any] = optimizer.state.get(parameter, {})
    yield from ((name, value) for name, value in state.items() if isinstance(value, Tensor) and value.dim() > 0)
    inner = getattr(optimizer, "base_optimizer", None)
    if isinstance(inner, Optimizer) and inner.state is not optimizer.state:
        yield from moments_of(inner, parameter)


@all_or_nothing
@torch.no_grad()
def recalibrate_(
    model: nn.Module, batches: Iterable[tuple[Any, float]], forward: Callable[[nn.Module, Any], Any]
) -> int:
    """Measure batch-norm statistics anew, as the weighted average over batches, in place or not at all.

    Weights and training flags do not change, and if anything raises, the buffers are restored.

    Args:
        model: The network.
        batches: (batch on the network's device, its weight such as its number of examples).
        forward: ``forward(model, batch)`` runs the network.

    Returns:
        The number of layers measured.
    """
    norms = [layer for layer in batch_norms(model) if layer.track_running_stats]
    if not norms:
        return 0
    momenta = [layer.momentum for layer in norms]
    total = 0.0

    def put_momenta_back() -> None:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum

    on_failure(saved_buffers(model))
    with eval_mode(model), afterwards(put_momenta_back):
        for layer in norms:
            layer.reset_running_stats()
            layer.train()
        for batch, weight in batches:
            total += weight
            for layer in norms:
                layer.momentum = weight / total
            forward(model, batch)
    return len(norms)


def measure_norms_(
    model: nn.Module,
    batches: Iterable[Any],
    forward_loss: Callable[[nn.Module, Any], Any],
    micro_batch_size: int | None,
    at_least: int,
    full_precision: bool,
) -> int:
    """Measure batch-norm statistics anew over the examples of all batches, in place or not at all.

    A part with fewer than ``at_least`` examples is left out: one example alone may have no statistics.

    Returns:
        The number of layers measured.
    """
    device = next(model.parameters()).device
    parts = (part for batch in batches for part in equal_parts(batch, micro_batch_size))
    here = ((to_device(part, device), examples) for part, examples in parts if examples >= at_least)
    with in_fp32(device.type) if full_precision else nullcontext():
        return recalibrate_(model, here, forward_loss)
