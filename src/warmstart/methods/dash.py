"""DASH, Direction-Aware SHrinking:  w <- min(1, max(lambda, cos(G, w))) w  for each neuron w

where G is the moving average of the negative gradient over all data so far, the newest weighing most.
Shin, Oh, Cho and Yun, DASH: Warm-Starting Neural Network Training in Stationary Settings without Loss of
Plasticity, NeurIPS 2024 (arXiv 2410.23495), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.batches import batches_that_matter
from warmstart.errors import InputError
from warmstart.gradient_ema import ForwardLoss, GradientEMA, as_forward_loss, average_gradient
from warmstart.methods.method import Method, Stage, require
from warmstart.methods.report import LayerReport, Report, describe_scales
from warmstart.neurons import Filter, Granularity, LeftAlone, Neurons, has_norm, neurons


@dataclass(frozen=True)
class Dash(Method):
    """DASH whenever new data arrives; the optimizer and its state go on."""

    alpha: float = 0.3
    lambda_: float = 0.3
    tolerance: float = 1e-6
    granularity: Granularity = "kernel"
    batch_size: int | None = None
    """Examples a batch of the average, its unit of memory; None: one stage's size, at most 2000."""

    name: ClassVar[str] = "dash"
    summary: ClassVar[str] = "shrink each neuron by the cosine between its weights and the negative gradient"
    source: ClassVar[str] = "Shin et al., NeurIPS 2024, arXiv 2410.23495"

    def __post_init__(self) -> None:
        batches_that_matter(self.alpha, self.tolerance)
        _check_lambda(self.lambda_)
        require(
            self.granularity in ("kernel", "neuron"),
            f"granularity {self.granularity!r}: say kernel or neuron",
        )
        require(
            self.batch_size is None or self.batch_size >= 1,
            f"batch_size is {self.batch_size}; it must be >= 1",
        )

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Apply DASH to all data seen so far, the newest last."""
        report = dash_(
            model,
            stage.batches(self.batch_size),
            forward_loss=stage.forward_loss,
            alpha=self.alpha,
            lambda_=self.lambda_,
            tolerance=self.tolerance,
            granularity=self.granularity,
            micro_batch_size=stage.micro_batch_size,
            new_examples=stage.new,
        )
        return report.with_notes("optimizer state kept, as in the paper")


def dash_(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    forward_loss: ForwardLoss | None = None,
    alpha: float = 0.3,
    lambda_: float = 0.3,
    tolerance: float = 1e-6,
    granularity: Granularity = "kernel",
    filter_fn: Filter | None = None,
    micro_batch_size: int | None = None,
    full_precision: bool = True,
    new_examples: int | None = None,
    apply: bool = True,
) -> Report:
    """Shrink every neuron by how well its weights agree with the negative gradient on all data, in place.

    The unit of alpha is a batch: the average spans about (2-alpha)/alpha of the batches given. Train the
    model before it predicts: its batch-norm statistics no longer fit the shrunk weights.

    Args:
        model: The network; weights and biases of linear and convolutional layers change, norm layers do not.
        batches: Batches over everything seen so far, oldest first and newest last, neither shuffled nor
            augmented: a `DataLoader`, a sequence or an iterable. Only the last K batches are loaded, with
            K = max(1, ceil(ln tolerance / ln(1-alpha))).
        loss_fn: ``loss_fn(output, target)`` for batches ``(input, target)``, a mean over examples. If None, a
            batch is a mapping, the model is called as ``model(**batch)`` and its ``.loss`` is used.
        forward_loss: ``forward_loss(model, batch) -> scalar``, instead of ``loss_fn`` for anything else.
        alpha: Rate of the moving average, in (0, 1]; 1 uses the last batch alone.
        lambda_: Lower bound of the scales, in [0, 1]; 1 changes nothing.
        tolerance: Relative error of the average that leaving out old batches may cause; 0 reads all.
        granularity: What one scale covers in a convolution: ``"kernel"``, an (out, in) pair as in the paper, or
            ``"neuron"``, an output filter.
        filter_fn: ``filter_fn(module, name)`` says which layers take part; all do if not given.
        micro_batch_size: Examples computed at a time, for batches that do not fit; the result is the same.
        full_precision: Switch autocast and TF32 off for the gradients.
        new_examples: How many of the last examples are new; the report then names old data's share.
        apply: False returns the report without touching a weight.

    Returns:
        By parameter the number of neurons, mean and spread of their scales; what was left alone and why.

    Raises:
        InputError: If a setting is out of range, the model has nothing to scale, there are no batches or they
            are shuffled, or a gradient is not finite. The model is bit for bit what it was.
    """
    _check_lambda(lambda_)
    ema = average_gradient(
        model,
        batches,
        as_forward_loss(loss_fn, forward_loss),
        alpha=alpha,
        tolerance=tolerance,
        filter_fn=filter_fn,
        micro_batch_size=micro_batch_size,
        full_precision=full_precision,
    )
    report = dash_from_(model, ema, lambda_=lambda_, granularity=granularity, apply=apply)
    return report.with_notes(*_coverage(ema, new_examples))


@torch.no_grad()
def dash_from_(
    model: nn.Module,
    ema: GradientEMA,
    *,
    lambda_: float = 0.3,
    granularity: Granularity = "kernel",
    apply: bool = True,
) -> Report:
    """Apply DASH with an average of gradients that is already there, in place.

    Args:
        model: The network that the average was taken over.
        ema: Its average, after at least one update.
        lambda_: Lower bound of the scales, in [0, 1].
        granularity: ``"kernel"`` or ``"neuron"``, what one scale covers in a convolution.
        apply: False returns the report without touching a weight.

    Returns:
        What was scaled by how much, and what was left alone and why.

    Raises:
        InputError: If the average is empty, not finite, or of another network; nothing is changed then.
    """
    _check_lambda(lambda_)
    if ema.updates == 0:
        raise InputError("the GradientEMA is empty: call backward() and ema.update() on each batch first")
    entries, left = neurons(model, granularity, ema.filter_fn)
    scales: list[tuple[Neurons, Tensor]] = []
    layers: list[LayerReport] = []
    for entry in entries:
        average = ema.average.get(entry.name)
        if average is None:
            left.append(LeftAlone(entry.name, "no gradient reached it"))
            continue
        scale = _scale(entry, average, lambda_)
        scales.append((entry, scale))
        layers.append(
            describe_scales(
                entry,
                scale,
                lambda_,
                sign_tests=entry.count if entry.size == 1 else 0,
                undetermined=_undetermined(entry, average, ema),
            )
        )
    if not scales:
        raise InputError("no gradient reached any weight: does the loss depend on the model's parameters?")
    if apply:
        for entry, scale in scales:
            entry.parameter.mul_(scale)
    notes = () if has_norm(model) else ("warning: no normalisation layers, so each layer shrinks the signal too",)
    settings = {"alpha": ema.alpha, "lambda": lambda_, "granularity": granularity}
    return Report("dash", settings, tuple(layers), tuple(left), notes, applied=apply)


def _scale(entry: Neurons, average: Tensor, lambda_: float) -> Tensor:
    """min(1, max(lambda, cos(G, w))) for each neuron, broadcastable against the weights."""
    if average.shape != entry.parameter.shape:
        raise InputError(
            f"{entry.name} has shape {tuple(entry.parameter.shape)} but its averaged gradient "
            f"{tuple(average.shape)}: the GradientEMA belongs to another model"
        )
    if not bool(average.isfinite().all()):
        raise InputError(f"the gradient of {entry.name} is not finite: check the newest data for NaN or huge values")
    if not bool(entry.parameter.isfinite().all()):
        raise InputError(f"{entry.name} holds NaN or infinite weights: restore a sound checkpoint first")
    weights = entry.parameter.to(average.dtype)
    cosine = (_unit(average, entry.dims) * _unit(weights, entry.dims)).sum(entry.dims, keepdim=True)
    return torch.clamp(cosine, lambda_, 1.0)


def _unit(vectors: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Vectors of length 1, zero where they are zero."""
    # Divided by the largest entry first, squares cannot underflow: no vector is too short to have a direction.
    vectors = vectors / vectors.abs().amax(dims, keepdim=True)
    return (vectors / torch.linalg.vector_norm(vectors, dim=dims, keepdim=True)).nan_to_num_(0.0)


def _undetermined(entry: Neurons, average: Tensor, ema: GradientEMA) -> int:
    """Neurons whose part of G is no larger than what leaving out old batches may have added to it."""
    if ema.left_out == 0:
        return 0
    left_out = (1 - ema.alpha) ** ema.updates * ema.largest[entry.name]
    return int((torch.linalg.vector_norm(average, dim=entry.dims) <= left_out).sum())


def _check_lambda(lambda_: float) -> None:
    require(0 <= lambda_ <= 1, f"lambda_ is {lambda_}; it must lie in [0, 1]")


def _coverage(ema: GradientEMA, new_examples: int | None) -> list[str]:
    """How much data the average effectively saw, and how much of that was old."""
    per_batch = ema.examples / ema.updates
    effective = min(float(ema.examples), (2 - ema.alpha) / ema.alpha * per_batch)
    notes = [
        f"averaged {ema.updates} batches, {ema.examples:,} examples (about {effective:,.0f} effectively), "
        f"{ema.left_out:,} older batches left out"
    ]
    if new_examples is not None and per_batch > 0:
        forgotten = (1 - ema.alpha) ** (ema.updates + ema.left_out)
        old = max(0.0, ((1 - ema.alpha) ** (new_examples / per_batch) - forgotten) / (1 - forgotten))
        notes.append(f"old data has {old:.1%} of the average's weight")
        if old < 0.01:
            notes.append("warning: old data is under 1 %, use larger batches or a smaller alpha")
    return notes
