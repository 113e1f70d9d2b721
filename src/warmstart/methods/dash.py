"""DASH, Direction-Aware SHrinking:  w <- min(1, max(lambda, cos(G, w))) w  for each neuron w

where G is the moving average of the negative gradient over all data so far, the newest weighing most.
Shin, Oh, Cho and Yun, DASH: Warm-Starting Neural Network Training in Stationary Settings without Loss of
Plasticity, NeurIPS 2024 (arXiv 2410.23495), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.average_gradient import average_gradient
from warmstart.batches import batches_that_matter, equal_slices, examples_in
from warmstart.class_labels import all_labels
from warmstart.errors import InputError, require, whole_number
from warmstart.gradient_ema import ALPHA, TOLERANCE, GradientEMA, Weight
from warmstart.layers.coverage import remarks, weights_in
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import (
    GRANULARITY,
    UNREACHED,
    Filter,
    Granularity,
    Neurons,
    neurons,
)
from warmstart.layers.norms import batch_norms, has_norm
from warmstart.layers.recalibration import measure_norms_
from warmstart.loaders import InOrder, tail
from warmstart.losses import ForwardLoss, as_forward_loss
from warmstart.methods.average_report import coverage
from warmstart.methods.method import Method, Stage
from warmstart.methods.report import SHRINKS_SIGNAL, Report, ScaleReport, count_scales, describe_scales
from warmstart.methods.training_state import BatchNorm, OptimizerState, StatePolicy
from warmstart.network import require_writable
from warmstart.processes import Shard, Team, local, on_inner_module, shard_of, team_of, unwrapped
from warmstart.setting import Range, Setting
from warmstart.undo import all_or_nothing, keep
from warmstart.wording import counted


@dataclass(frozen=True)
class Dash(Method):
    """DASH whenever new data arrives; the optimizer goes on."""

    alpha: Annotated[
        float, Setting("Rate of the moving average; 1: the last batch alone", above=0, at_most=1, search=Range(0.05, 1))
    ] = ALPHA
    lambda_: Annotated[
        float, Setting("Lower bound of the scales; 1 changes nothing", at_least=0, at_most=1, search=Range(0.03, 0.6))
    ] = 0.3
    tolerance: Annotated[
        float, Setting("Relative error that leaving out old batches may cause; 0 reads all", at_least=0, below=1)
    ] = TOLERANCE
    granularity: Annotated[
        Granularity,
        Setting("What one scale covers in a convolution: a kernel as in the paper, or an output filter as ``neuron``"),
    ] = GRANULARITY
    batch_size: Annotated[
        int | None,
        Setting(
            "Examples a batch of the average, its unit of memory; None: a stage's size, at most 2000, in a comparison, "
            "and 1000 in the callbacks",
            at_least=1,
        ),
    ] = None
    optimizer_state: Annotated[
        OptimizerState,
        Setting("``keep`` (the paper's) or ``reset`` the optimizer's, or ``scale`` moments with their neurons"),
    ] = "keep"
    batch_norm: Annotated[
        BatchNorm, Setting("``keep`` (the paper's) or ``recalibrate``: running statistics measured anew after scaling")
    ] = "keep"

    name: ClassVar[str] = "dash"
    summary: ClassVar[str] = "shrink each neuron by the cosine between its weights and the negative gradient"
    source: ClassVar[str] = "Shin et al., NeurIPS 2024, arXiv 2410.23495"
    year: ClassVar[int] = 2024
    acts: ClassVar[str] = "when data arrives"
    cost: ClassVar[str] = "a gradient over the last K batches (39), one fp32 copy of the weights"
    limits: ClassVar[str] = "networks without norm layers; pretrained backbones: not measured"
    page: ClassVar[str] = "dash.md"
    follows: ClassVar[Collection[str]] = ("filter_fn", "weight")

    def examples_read(self, seen: int, batch: int) -> float:
        """The tail that matters."""
        batches = batches_that_matter(self.alpha, self.tolerance) or math.inf
        return min(seen, batches * (self.batch_size or batch))

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Apply DASH to all data seen so far, the newest last."""
        return dash_(
            model,
            stage.batches(self.batch_size),
            forward_loss=stage.forward_loss,
            alpha=self.alpha,
            lambda_=self.lambda_,
            tolerance=self.tolerance,
            granularity=self.granularity,
            filter_fn=stage.filter_fn,
            micro_batch_size=stage.micro_batch_size,
            weight=stage.weight or examples_in,
            new_examples=stage.new,
            optimizer=stage.optimizer,
            optimizer_state=self.optimizer_state,
            batch_norm=self.batch_norm,
        )


@all_or_nothing
def dash_(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    forward_loss: ForwardLoss | None = None,
    alpha: float = Dash.alpha,
    lambda_: float = Dash.lambda_,
    tolerance: float = Dash.tolerance,
    granularity: Granularity = Dash.granularity,
    filter_fn: Filter | None = None,
    micro_batch_size: int | None = None,
    full_precision: bool = True,
    weight: Weight = examples_in,
    new_examples: int | None = None,
    optimizer: Optimizer | None = None,
    optimizer_state: OptimizerState = Dash.optimizer_state,
    batch_norm: BatchNorm = Dash.batch_norm,
    apply: bool = True,
) -> Report:
    """Shrink every neuron by how well its weights agree with the negative gradient on all data, in place.

    The unit of alpha is a batch: the average spans about (2-alpha)/alpha of the batches given. Train the
    model before it predicts: its batch-norm statistics no longer fit the shrunk weights.

    Args:
        model: The network; weights and biases of linear and convolutional layers change, norm layers do not.
        batches: Batches over everything seen so far, oldest first and newest last, neither shuffled nor
            augmented: a `DataLoader`, a sequence or an iterable. Only the last K batches are loaded, with
            K = max(1, ceil(ln tolerance / ln(1-alpha))); an iterator ends within a million. Under
            DistributedDataParallel and FSDP2 each process passes its share of every batch.
        loss_fn: ``loss_fn(output, target)`` for batches ``(input, target)``, a mean over examples. If None, a
            batch is a mapping, the model is called as ``model(**batch)`` and its ``.loss`` is used.
        forward_loss: ``forward_loss(model, batch) -> scalar``, instead of ``loss_fn`` for anything else.
        alpha: Rate of the moving average, in (0, 1]; 1 uses the last batch alone.
        lambda_: Lower bound of the scales, in [0, 1]; 1 changes nothing.
        tolerance: Relative error of the average that leaving out old batches may cause; 0 reads all.
        granularity: What one scale covers in a convolution: ``"kernel"``, an (out, in) pair as in the paper;
            ``"kernel-or-row"``, the same but for 1x1 kernels, which are scaled like a linear layer, by output;
            ``"neuron"``, an output filter.
        filter_fn: ``filter_fn(module, name)`` says which layers take part; all do if not given.
        micro_batch_size: Examples computed at a time, for batches that do not fit; the result is the same. If None,
            as many as the loader given to `oldest_first` has, where that made the batches, else a whole batch.
        full_precision: Switch autocast and TF32 off for the gradients.
        weight: ``weight(batch)``, what the loss is a mean over where that is not examples: tokens, for instance. It
            weighs the micro-batches, and the processes' shares, of a batch.
        new_examples: How many of the last examples are new; the report then names old data's share of the average.
        optimizer: The optimizer that goes on, for ``optimizer_state``. What it does not hold is left alone, so
            leave it out where several train the model.
        optimizer_state: ``"keep"`` (the paper's), ``"reset"``, or ``"scale"``: moments with their neurons.
        batch_norm: ``"keep"`` (the paper's) or ``"recalibrate"``: running statistics measured anew over the same
            batches after scaling, which are then read twice; a copy of the weights is held meanwhile.
        apply: False returns the report without touching a weight.

    Returns:
        By parameter the number of neurons, mean and spread of their scales; what was left alone and why.

    Raises:
        InputError: If a setting is out of range, the model has nothing to scale, there are no batches or they
            are shuffled, or a gradient is not finite. Then, and after any other exception, the model is bit for bit
            what it was.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        >>> batches = [(torch.randn(10, 4), torch.randint(2, (10,))) for month in range(5)]  # oldest first
        >>> report = ws.dash_(model, batches, torch.nn.functional.cross_entropy)
        >>> [layer.name for layer in report.layers]  # print(report) says by how much
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    team = team_of(model)[1]
    Dash.check(alpha=alpha, lambda_=lambda_, tolerance=tolerance, granularity=granularity)
    Dash.check(optimizer_state=optimizer_state, batch_norm=batch_norm)
    if micro_batch_size is None and isinstance(batches, InOrder):
        micro_batch_size = batches.micro_batch_size
    if new_examples is not None:
        whole_number("new_examples", new_examples, 0)
    if batch_norm == "recalibrate":
        require(not isinstance(batches, Iterator), "batch_norm='recalibrate' reads batches twice: pass a sequence")
        require(team.size == 1, "batch_norm='recalibrate' works in one process only")
    policy = StatePolicy(optimizer, optimizer_state, batch_norm)
    team.attempt(partial(_check_before, model, granularity, filter_fn, policy, apply))
    loss = as_forward_loss(loss_fn, forward_loss)
    ema = average_gradient(
        model,
        batches,
        loss,
        alpha=alpha,
        tolerance=tolerance,
        filter_fn=filter_fn,
        micro_batch_size=micro_batch_size,
        full_precision=full_precision,
        weight=weight,
    )
    notes, warnings = coverage(ema, new_examples, all_labels(batches))
    measure: Callable[[], int] | None = None
    if apply and batch_norm == "recalibrate":
        again = _read_again(batches, batches_that_matter(alpha, tolerance), micro_batch_size)
        measure = partial(measure_norms_, model, again, loss, micro_batch_size, min(2, max(ema.sizes)), full_precision)
    plan = _planned(model, ema, lambda_, granularity, policy)
    del ema  # so that beside the model there is one copy of its weights, the average's before and the old ones' now
    report = _apply_(plan, policy, measure) if apply else plan.report
    return report.with_notes(*notes).with_warnings(*warnings, *on_inner_module(team))


@all_or_nothing
def dash_from_(
    model: nn.Module,
    ema: GradientEMA,
    *,
    lambda_: float = Dash.lambda_,
    granularity: Granularity = Dash.granularity,
    optimizer: Optimizer | None = None,
    optimizer_state: OptimizerState = Dash.optimizer_state,
    apply: bool = True,
) -> Report:
    """Apply DASH with an average of gradients that is already there, in place.

    Args:
        model: The network that the average was taken over.
        ema: Its average, after at least one update.
        lambda_: Lower bound of the scales, in [0, 1].
        granularity: What one scale covers in a convolution, as for `dash_`.
        optimizer: The optimizer that goes on, for ``optimizer_state``. What it does not hold is left alone, so
            leave it out where several train the model.
        optimizer_state: ``"keep"`` (the paper's), ``"reset"``, or ``"scale"``: moments with their neurons.
        apply: False returns the report without touching a weight.

    Returns:
        What was scaled by how much, and what was left alone and why.

    Raises:
        InputError: If the average is empty, not finite, or of other parameters than this network's, such as those of
            a layer that was replaced since, or of a copy; nothing is changed then.
    """
    if not isinstance(ema, GradientEMA):
        raise InputError(f"ema is a {type(ema).__name__}: pass a GradientEMA, or batches to ws.dash_")
    Dash.check(lambda_=lambda_, granularity=granularity, optimizer_state=optimizer_state)
    policy = StatePolicy(optimizer, optimizer_state)
    plan = _planned(model, ema, lambda_, granularity, policy)
    return _apply_(plan, policy) if apply else plan.report


@dataclass(frozen=True)
class _Plan:
    """What is to be scaled by how much; nothing has changed yet."""

    model: nn.Module
    team: Team
    factors: list[tuple[Neurons, Tensor]]
    """min(1, max(lambda, cos(G, w))), broadcastable against the weights, as far as this process holds them."""
    report: Report


@torch.no_grad()
def _planned(
    model: nn.Module, ema: GradientEMA, lambda_: float, granularity: Granularity, policy: StatePolicy
) -> _Plan:
    """The scales of all neurons that a gradient reached, after all checks."""
    model, team = team_of(model)
    if ema.updates == 0:
        raise InputError("the GradientEMA is empty: call backward() and ema.update() on each batch first")
    entries, left = neurons(model, granularity, ema.filter_fn)
    team.attempt(partial(_check_identity, entries, ema))
    trained, others = team.attempt(partial(policy.check, entries))
    reached = [entry for entry in trained if ema.reaches(entry)]
    left += [*others, *(LeftAlone(entry.name, UNREACHED) for entry in trained if not ema.reaches(entry))]
    team.attempt(partial(_check, reached, ema))
    scales = [_scale(entry, ema, lambda_) for entry in reached]
    layers = [_described(entry, scale, ema, lambda_) for entry, scale in zip(reached, scales, strict=True)]
    settings = {"alpha": ema.alpha, "lambda": lambda_, "granularity": granularity}
    report = Report("dash", settings, tuple(layers), tuple(left), applied=False, weights=weights_in(model))
    report = report.with_warnings(*(() if has_norm(model) else (SHRINKS_SIGNAL,)))
    for remark in remarks(model, reached, left, granularity):
        report = report.with_warnings(str(remark)) if remark.warns else report.with_notes(str(remark))
    return _Plan(model, team, [(entry, scale.factor) for entry, scale in zip(reached, scales, strict=True)], report)


@torch.no_grad()
def _apply_(plan: _Plan, policy: StatePolicy, measure: Callable[[], int] | None = None) -> Report:
    """W <- min(1, max(lambda, cos(G, w))) w, and what comes after it."""
    weights = {entry.name: entry.parameter for entry, _ in plan.factors}
    plan.team.attempt(partial(require_writable, weights))
    keep(weights.values())
    for entry, factor in plan.factors:
        entry.view(local(entry.parameter)).mul_(factor)
    notes = [] if measure is None else [f"statistics of {counted(measure(), 'batch-norm layer')} measured anew"]
    notes.append(policy.apply_(plan.factors))
    if policy.batch_norm == "keep" and batch_norms(plan.model):
        notes.append("batch-norm statistics kept: train before predicting")
    return replace(plan.report, applied=True).with_notes(*notes)


@torch.inference_mode(mode=False)
def _check_before(
    model: nn.Module, granularity: Granularity, filter_fn: Filter | None, policy: StatePolicy, apply: bool
) -> None:
    """Refuse, before gradients are computed, what could not be scaled then."""
    entries, _ = neurons(unwrapped(model), granularity, filter_fn)
    trained, _ = policy.check(entries)
    if apply:
        require_writable({entry.name: entry.parameter for entry in trained})


def _check_identity(entries: list[Neurons], ema: GradientEMA) -> None:
    """Refuse an average over other parameters, which nothing but their names need tell from these."""
    watched = {entry.name: entry.parameter for entry in ema.parameters}
    for entry in entries:
        if watched.get(entry.name, entry.parameter) is not entry.parameter:
            raise InputError(
                f"{entry.name} was replaced after the GradientEMA was made, or belongs to another model or a copy: "
                "make a GradientEMA of this model, and copy both at once, copy.deepcopy((model, ema))"
            )


def _check(entries: list[Neurons], ema: GradientEMA) -> None:
    """Refuse an average that reached nothing or is not finite, before any weight changes."""
    if not entries:
        raise InputError("no gradient reached any weight: does the loss depend on the model's parameters?")
    for entry in entries:
        weights, average = entry.parameter, ema.of(entry)
        if not bool(local(average).isfinite().all()):
            raise InputError(
                f"the gradient of {entry.name} is not finite: check the newest data for NaN or huge values"
            )
        if not bool(local(weights).isfinite().all()):
            raise InputError(f"{entry.name} holds NaN or infinite weights: restore a sound checkpoint first")
        if entry.groups > 1 and shard_of(weights).dim is not None:
            raise InputError(
                f"{entry.name} is sharded, and a scale for each output needs all of it: pass granularity='kernel'"
            )


@dataclass(frozen=True)
class _Scale:
    """The scales of one parameter's neurons, as far as this process holds them."""

    factor: Tensor
    """min(1, max(lambda, cos(G, w))), broadcastable against the weights."""
    length: Tensor
    """||G|| of each neuron."""
    shard: Shard
    """The processes that hold other neurons of the parameter; none where each neuron is spread over all of them."""


def _scale(entry: Neurons, ema: GradientEMA, lambda_: float) -> _Scale:
    """min(1, max(lambda, cos(G, w))) for each neuron."""
    average = ema.of(entry)
    shard = shard_of(entry.parameter)
    spread, apart = (shard, Shard()) if shard.dim in entry.dims else (Shard(), shard)
    toward = entry.view(local(average))
    weights = entry.view(local(entry.parameter)).to(toward.dtype)
    cosine, length = _cosine(toward, weights, entry.dims, spread)
    factor = torch.clamp(cosine, lambda_, 1.0)
    if entry.spare_unseen:
        factor = factor.masked_fill(length == 0, 1.0)
    return _Scale(factor, length, apart)


def _cosine(g: Tensor, w: Tensor, dims: tuple[int, ...], spread: Shard) -> tuple[Tensor, Tensor]:
    """cos(g, w) over some dimensions, 0 where either is zero, and ||g||; a neuron may be spread over processes."""
    # Divided by the largest entry first, squares cannot underflow: even the shortest vector keeps its direction.
    largest_g, largest_w = (spread.reduce_(_largest(x, dims), dist.ReduceOp.MAX) for x in (g, w))
    g, w = ((x / largest).nan_to_num(0.0) for x, largest in ((g, largest_g), (w, largest_w)))
    dot, gg, ww = spread.reduce_(torch.stack([(x * y).sum(dims, keepdim=True) for x, y in ((g, w), (g, g), (w, w))]))
    return (dot / (gg * ww).sqrt()).nan_to_num(0.0), gg.sqrt() * largest_g


def _largest(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    if x.numel() == 0 and any(x.shape[d] == 0 for d in dims):  # a process may hold no part of a small parameter
        return x.sum(dims, keepdim=True)
    return x.abs().amax(dims, keepdim=True)


def _described(entry: Neurons, scale: _Scale, ema: GradientEMA, lambda_: float) -> ScaleReport:
    """The scales of one parameter in numbers, over all processes that hold some."""
    unsure = torch.zeros((), device=scale.factor.device)
    if ema.left_out > 0:  # no more than what leaving out old batches may have added
        unsure = (scale.length <= (1 - ema.alpha) ** ema.updates * ema.largest[entry.name]).sum()
    counts = scale.shard.reduce_(count_scales(scale.factor, lambda_, unsure))
    return describe_scales(entry, counts)


def _read_again(batches: Iterable[Any], last: int | None, size: int | None) -> Iterable[Any]:
    try:
        return tail(batches, last, None if size is None else partial(equal_slices, size=size)).batches
    except InputError as error:
        raise InputError(f"batch_norm='recalibrate' reads batches twice, and the second time: {error}") from None
