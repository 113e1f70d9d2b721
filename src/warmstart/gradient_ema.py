"""The moving average of negative gradients over a stream of batches:  G <- (1-alpha) G + alpha (-grad L)

Shin et al., DASH: Warm-Starting Neural Network Training in Stationary Settings without Loss of Plasticity,
NeurIPS 2024 (arXiv 2410.23495), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.batches import (
    batches_that_matter,
)
from warmstart.errors import InputError, number, require
from warmstart.layers.neurons import Filter, Neurons, neurons
from warmstart.processes import Team, local, team_of
from warmstart.undo import all_or_nothing, keep, on_failure

ALPHA = 0.3
"""The paper's rate of the average."""
TOLERANCE = 1e-6
"""What leaving out old batches may change the average by."""

_SMALLEST_DECAY = 1e-9
"""Gradients are divided by the decay, so it stays far above the smallest fp32."""

Weight = Callable[[Any], float]
"""``weight(batch)``: what a batch's loss is a mean over, such as its number of examples."""


class GradientEMA:
    """The average for any loop: call ``backward()`` yourself, oldest batch first, then ``ema.update()``.

    It holds one fp32 copy of the weights that can be scaled (fp64 where they are), made at the first update, and a
    second one while an update runs, so that an update that fails leaves the average as it was.

    Attributes:
        alpha: Rate of the average; the newest batch has the weight alpha.
        updates: How many batches have gone in.
        sizes: The examples of each batch that went in, oldest first, as far as `average_gradient` fed them.
        labels: The class labels of each such batch, of this process's share; None where it has none.
        left_out: How many older batches were left out before the first update.
        largest: Parameter name -> the largest norm of a gradient that went in (under FSDP2, of this process's part),
            which bounds what the batches left out could have added; empty where none was.
        parameters: The parameters that take part, as `neurons` splits them.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> ema = ws.GradientEMA(model)
        >>> for batch in torch.randn(5, 10, 4):  # five batches, oldest first
        ...     model.zero_grad()
        ...     model(batch).square().mean().backward()
        ...     ema.update()
        >>> report = ws.dash_from_(model, ema)
    """

    def __init__(self, model: nn.Module, alpha: float = ALPHA, *, filter_fn: Filter | None = None) -> None:
        """Prepare an average over the gradients of a model.

        Args:
            model: The network whose ``.grad`` will be read. It is not changed.
            alpha: Rate in (0, 1]; the average then spans about (2-alpha)/alpha batches.
            filter_fn: ``filter_fn(module, name)`` says which layers take part.

        Raises:
            InputError: If alpha is out of range or the model has nothing to scale.
        """
        batches_that_matter(alpha, 0)  # the range check
        self.alpha = alpha
        self.updates = 0
        self.sizes: list[int] = []
        self.labels: list[Tensor | None] = []
        self.left_out = 0
        self.largest: dict[str, Tensor] = {}
        self._sum: dict[str, Tensor] = {}
        self._decay = 1.0
        self.filter_fn = filter_fn
        model, team = team_of(model)
        # Gradients are alike in all processes, unless each has a part of them.
        self._team = team if team.sharded else Team()
        self.parameters: list[Neurons] = neurons(model, filter_fn=filter_fn)[0]

    @all_or_nothing
    def update(self, weight: float = 1.0) -> None:
        """Take the gradients that are in ``.grad`` into the average; nothing else is read or changed.

        A ``.grad`` of None counts as zero. Zeroing gradients, eval mode and undoing a loss scale are the caller's, and
        so is leaving out a batch whose gradients overflowed.

        Args:
            weight: Factor on this batch's gradient, such as ``1 / n`` for a loss that is a sum over n examples.

        Raises:
            InputError: If weight or a gradient is not finite; then, and after any other exception, the average is as
                it was.
        """
        weight = number("weight", weight)
        require(math.isfinite(weight), f"weight is {weight}; it must be finite")
        self._team.attempt(self._require_finite)
        self._keep()
        self.take_in(weight)

    @torch.no_grad()
    def _require_finite(self) -> None:
        """Raise InputError if a gradient is not; where all are, a single number is fetched from the device."""
        gradients = {e.name: e.parameter.grad for e in self.parameters if e.parameter.grad is not None}
        finite = [_dense(local(gradient)).isfinite().all() for gradient in gradients.values()]
        if finite and not bool(torch.stack([every.to(finite[0].device) for every in finite]).all()):
            name = next(name for name, every in zip(gradients, finite, strict=True) if not every)
            raise InputError(
                f"the gradient of {name} is not finite: skip this batch, as GradScaler skips its step, or look for NaN "
                "in it"
            )

    @torch.no_grad()
    def take_in(self, weight: float = 1.0) -> None:
        """`update` without the copy that puts a failed one back, for an average that is thrown away then.

        Args:
            weight: As in `update`.
        """
        # G = decay * sum, so that a batch costs one pass over memory, not the two of "shrink, then add".
        if self._decay * (1 - self.alpha) < _SMALLEST_DECAY:
            self._fold(self._decay * (1 - self.alpha))
        else:
            self._decay *= 1 - self.alpha
        for entry in self.parameters:
            gradient = entry.parameter.grad
            if gradient is None:
                continue
            gradient = _dense(gradient)
            self.start(entry)
            self._sum[entry.name].add_(gradient, alpha=-self.alpha * weight / self._decay)
            if self.left_out:
                largest = self.largest[entry.name]
                norm = torch.linalg.vector_norm(local(gradient), dtype=largest.dtype) * abs(weight)
                torch.maximum(largest, norm, out=largest)
        self.updates += 1

    @property
    def examples(self) -> int:
        """How many examples went in; 0 in a loop of your own."""
        return sum(self.sizes)

    @property
    def average(self) -> dict[str, Tensor]:
        """Parameter name -> G, of the parameter's shape; a parameter without any gradient has no entry."""
        if self._decay != 1:
            self._settle()
        return self._sum

    def of(self, entry: Neurons) -> Tensor:
        """G of one of the parameters that have it, without a copy of the others'.

        Args:
            entry: Whose, by its name.

        Returns:
            A tensor of its shape.
        """
        total = self._sum[entry.name]
        return total if self._decay == 1 else total * self._decay

    def reaches(self, entry: Neurons) -> bool:
        """Whether any gradient of a parameter went in.

        Args:
            entry: Which, by its name.

        Returns:
            False where all were None.
        """
        return entry.name in self._sum

    @all_or_nothing
    def _settle(self) -> None:
        self._keep()
        self._fold(self._decay)

    def _keep(self) -> None:
        """Keep all that an update changes."""
        was = {**vars(self), "_sum": dict(self._sum), "largest": dict(self.largest)}
        on_failure(partial(vars(self).update, was))
        keep([*self._sum.values(), *self.largest.values()])

    @torch.no_grad()
    def _fold(self, decay: float) -> None:
        for total in self._sum.values():
            total.mul_(decay)
        self._decay = 1.0

    def start(self, entry: Neurons) -> None:
        """Begin the average of a parameter at zero, unless it has begun.

        Args:
            entry: One of ``parameters``.
        """
        if entry.name not in self._sum:
            dtype = torch.promote_types(entry.parameter.dtype, torch.float32)
            self._sum[entry.name] = torch.zeros_like(entry.parameter, dtype=dtype, requires_grad=False)
            if self.left_out:
                self.largest[entry.name] = torch.zeros((), dtype=dtype, device=local(entry.parameter).device)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient
