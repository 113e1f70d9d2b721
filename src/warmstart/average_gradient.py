"""The average of `GradientEMA`, over the tail of a stream of batches that matters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.batches import Pieces, batches_that_matter, examples_in, is_empty, micro_batches, part_weights, slices
from warmstart.class_labels import labels_of
from warmstart.errors import InputError, at_least_one
from warmstart.gradient_ema import ALPHA, TOLERANCE, GradientEMA, Weight
from warmstart.gradient_pass import gradient_pass, scalar_loss
from warmstart.layers.neurons import Filter
from warmstart.loaders import tail
from warmstart.losses import ForwardLoss
from warmstart.processes import Team, team_of


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
