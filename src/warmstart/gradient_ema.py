"""The moving average of negative gradients over a stream of batches:  G <- (1-alpha) G + alpha (-grad L)

Shin et al., DASH: Warm-Starting Neural Network Training in Stationary Settings without Loss of Plasticity,
NeurIPS 2024 (arXiv 2410.23495), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.batches import (
    Pieces,
    batches_that_matter,
    examples_in,
    is_empty,
    micro_batches,
    part_weights,
    slices,
    to_device,
)
from warmstart.class_labels import labels_of
from warmstart.errors import InputError, at_least_one, number, require
from warmstart.layers.neurons import Filter, Neurons, neurons
from warmstart.layers.recurrent import recurrent_layers
from warmstart.loaders import tail
from warmstart.losses import ForwardLoss
from warmstart.network import detached_caches, eval_mode, saved_buffers, saved_caches
from warmstart.precision import in_fp32
from warmstart.processes import Team, local, reshard, team_of
from warmstart.undo import afterwards, all_or_nothing, keep, on_failure

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


def average_gradient(
    model: nn.Module,
    batches: Iterable[Any],
    forward_loss: ForwardLoss,
    *,
    alpha: float = ALPHA,
    tolerance: float = TOLERANCE,
    filter_fn: Filter | None = None,
    micro_batch_size: int | None = None,
    full_precision: bool = True,
    weight: Weight = examples_in,
) -> GradientEMA:
    """Average a model's negative gradients over the tail of a stream of batches, the oldest first.

    The model runs in eval mode on the device of its first parameter, and training flags, ``.grad`` and buffers are
    restored. ``tolerance`` is the relative error that leaving out old batches may cause; 0 reads all.
    ``weight(batch)`` is what the loss is a mean over, examples or tokens: it weighs micro-batches, and the processes'
    shares, of a batch.

    Returns:
        The average, with the number of batches and examples that went in.

    Raises:
        InputError: If a setting is out of range, there is no batch or an empty one, the loader shuffles, or a loss
            is not a differentiable scalar.
    """
    if micro_batch_size is not None:
        at_least_one("micro_batch_size", micro_batch_size)
    model, team = team_of(model)
    if any(getattr(parameter, "_post_accumulate_grad_hooks", None) for parameter in model.parameters()):
        raise InputError("a hook acts on gradients as they come (an optimizer in the backward pass?): remove it first")
    ema = GradientEMA(model, alpha, filter_fn=filter_fn)
    device = next(model.parameters()).device
    if full_precision:
        forward_loss = _in_one_dtype(model, forward_loss)
    with gradient_pass(model, full_precision=full_precision) as running:
        cut = None if micro_batch_size is None else partial(slices, size=micro_batch_size)
        source = team.attempt(lambda: tail(batches, batches_that_matter(alpha, tolerance), cut))
        ema.left_out = source.left_out
        for share in _shares(source.batches, weight, team):
            ema.sizes.append(share.examples)
            ema.labels.append(labels_of(share.batch))
            for piece, part in _pieces(share, micro_batch_size, weight, team):
                loss = team.attempt(partial(scalar_loss, model, piece, forward_loss, device))
                running.backward(loss * part)
            ema.take_in()
            model.zero_grad(set_to_none=True)
    _add_up(ema, team)
    return ema


def _in_one_dtype(model: nn.Module, forward_loss: ForwardLoss) -> ForwardLoss:
    """The same loss, which says what to do where a network works under autocast alone."""
    autocast = torch.is_autocast_enabled(next(model.parameters()).device.type)
    mixed = len({parameter.dtype for parameter in model.parameters()}) > 1

    def loss_of(model: nn.Module, batch: Any) -> Tensor:
        try:
            return forward_loss(model, batch)
        except RuntimeError as error:
            if (autocast or mixed) and "type" in str(error):  # PyTorch says this in many ways, one for each operation
                remedy = "pass full_precision=False, or " if autocast else ""
                raise InputError(
                    f"the loss seems to need autocast, which is off for full-precision gradients: {remedy}open "
                    f"torch.autocast in forward_loss ({str(error).splitlines()[0]})"
                ) from error
            raise

    return loss_of


@dataclass(frozen=True)
class _Share:
    """This process's share of one batch."""

    batch: Any
    of_batch: float
    """Its weight among the shares of all processes, which sum to 1."""
    examples: int
    """In the whole batch."""


def _shares(batches: Iterable[Any], weight: Weight, team: Team) -> Iterator[_Share]:
    """This process's shares; all processes step together, and an error in one is raised in all."""
    iterator = iter(batches)
    while True:
        batch = team.attempt(lambda: next(iterator, _END))
        own, count = team.attempt(partial(_weighed, batch, weight))
        rows = team.gather(batch is _END, own, count)
        if all(ended for ended, _, _ in rows):
            return
        if any(ended for ended, _, _ in rows):
            raise InputError(
                "the processes disagree on the number of batches: give each process its share of every batch"
            )
        total = sum(other for _, other, _ in rows)
        if own == count == 0 and len(rows) == 1:  # an object whose examples cannot be counted
            own = total = 1.0
        if not (math.isfinite(total) and total > 0 and own >= 0):
            raise InputError(f"the weights of a batch's shares sum to {total}; each must be >= 0, and one above 0")
        yield _Share(batch, own / total, int(sum(others for _, _, others in rows)))


_END: Any = object()


def _weighed(batch: Any, weight: Weight) -> tuple[float, int]:
    """The weight of a share, and its examples."""
    if batch is _END:
        return 0.0, 0
    if is_empty(batch):
        raise InputError("a batch holds no examples: leave it out")
    whole = sum(part_weights(batch, weight)) if isinstance(batch, Pieces) else weight(batch)
    return whole, examples_in(batch)


def _pieces(share: _Share, size: int | None, weight: Weight, team: Team) -> Iterator[tuple[Any, float]]:
    """A share in micro-batches, each with its part of the whole batch; as many on every process."""
    pieces = team.attempt(lambda: list(micro_batches(share.batch, size, weight)))
    # Where the backward pass averages over processes, that is undone: shares are parts of a sum.
    factor = share.of_batch * (team.size if team.sharded else 1)
    for piece, part in pieces:
        yield piece, part * factor
    most = max(count for (count,) in team.gather(len(pieces)))
    for _ in range(int(most) - len(pieces)):
        yield pieces[0][0], 0.0


def _add_up(ema: GradientEMA, team: Team) -> None:
    """Sum the processes' averages: they are linear in the gradients, so one sum at the end is enough."""
    if team.size == 1:
        return
    ema._fold(ema._decay)  # nobody else has this average, which fails as a whole
    present = torch.tensor([float(ema.reaches(entry)) for entry in ema.parameters], device=team.device)
    team.sum_([present])
    for entry, holders in zip(ema.parameters, present.tolist(), strict=True):
        if holders:
            ema.start(entry)
            if not team.sharded:
                team.sum_([ema._sum[entry.name]])
            if ema.left_out:
                team.sum_([ema.largest[entry.name]])  # a bound: the norm of a sum is at most the sum of norms


def scalar_loss(model: nn.Module, batch: Any, forward_loss: ForwardLoss, device: torch.device) -> Tensor:
    """The loss of a batch, with its graph; InputError unless it is one number that has one."""
    loss = forward_loss(model, to_device(batch, device))
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"has shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"is a {type(loss).__name__}"
        raise InputError(f"the loss {what}; it must be one number, the mean over the batch's examples")
    if not loss.requires_grad:
        raise InputError("the loss has no gradient graph: compute it from the model's output without detach or no_grad")
    return loss.squeeze()


@dataclass(frozen=True)
class GradientPass:
    """A model whose gradients are being computed, by as many backward passes as it takes."""

    drop_caches: Callable[[], None]
    """Drops the tensors of a graph that the model has kept."""
    _gradients: dict[Tensor, Tensor | None]
    """Every ``.grad`` of the model's own parameters, as it was."""
    _apart: dict[Tensor, Tensor | None]
    """Those of other leaves while a backward pass runs."""

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient to ``.grad`` of the model alone: a loss function may have weights of its own."""
        for leaf in leaves(loss):
            if leaf not in self._gradients:
                self._apart.setdefault(leaf, leaf.grad)
                leaf.grad = None  # a backward pass adds to it in place
        try:
            loss.backward()  # not with inputs=, which reentrant checkpointing refuses
        finally:
            self.put_apart_back()
        self.drop_caches()

    def put_apart_back(self) -> None:
        """Give leaves that are not the model's their gradients back."""
        for leaf, gradient in self._apart.items():
            leaf.grad = gradient
        self._apart.clear()


def leaves(loss: Tensor) -> Iterator[Tensor]:
    """The tensors to whose ``.grad`` a backward pass adds, which its graph ends in."""
    seen = {loss.grad_fn}
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        following = {after for after, _ in node.next_functions} - seen - {None} if node is not None else set()
        seen |= following
        waiting += following


@contextmanager
def gradient_pass(model: nn.Module, *, full_precision: bool = True) -> Iterator[GradientPass]:
    """Eval mode, gradients on, empty ``.grad``; restores these and all buffers at the end, also after an error.

    Yields:
        What computes gradients.
    """
    gradients: dict[Tensor, Tensor | None] = {parameter: parameter.grad for parameter in model.parameters()}
    dropouts = {layer: layer.dropout for layer in recurrent_layers(model)}

    def put_back() -> None:
        reshard(model)
        for layer, dropout in dropouts.items():
            layer.dropout = dropout
        for parameter, gradient in gradients.items():
            parameter.grad = gradient

    with ExitStack() as stack:
        on_failure(stack.close)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if full_precision:
            stack.enter_context(in_fp32(next(model.parameters()).device.type))
        stack.enter_context(afterwards(saved_buffers(model)))
        stack.enter_context(afterwards(detached_caches(model)))
        running = GradientPass(saved_caches(model), gradients, {})
        stack.enter_context(afterwards(running.drop_caches))
        stack.enter_context(afterwards(running.put_apart_back))
        stack.enter_context(eval_mode(model))
        stack.enter_context(afterwards(put_back))
        for layer in dropouts:  # cuDNN differentiates them in train mode only; without dropout it is the same
            layer.training, layer.dropout = True, 0.0
        model.zero_grad(set_to_none=True)
        yield running
