"""What happens to optimizer state and batch-norm statistics when a method changes the weights; the paper keeps both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import Neurons
from warmstart.methods.method import has_state, reset_optimizer_
from warmstart.network import require_optimizer, require_writable
from warmstart.processes import local
from warmstart.undo import keep

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
