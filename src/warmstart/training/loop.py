"""Training on one stage until the stopping rule holds.

The rule of Shin et al., NeurIPS 2024 (arXiv 2410.23495): stop when the mean of an epoch's per-batch accuracies,
measured while training, reaches a threshold.

An epoch is cut into segments. All randomness is seeded at a segment's start, so a stage that was saved there goes on
with the same numbers, without the state of any generator.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.layers.norms import batch_norms
from warmstart.processes import Team
from warmstart.training.augmentation import AUGMENTATIONS
from warmstart.training.energy import EnergyMeter
from warmstart.training.examples import Examples
from warmstart.training.layout import laid_out
from warmstart.training.memory import freed_memory_kept
from warmstart.training.recipe import Recipe
from warmstart.training.shares import Shares
from warmstart.training.step import Step, make_step, tf32

SEGMENT = 64
"""Batches between two places where a stage can be saved."""

FIRST_SPAN = 50
"""Epochs of a stage's first span; each further span ends at twice the epoch of the one before."""
PATIENCE = 200
"""Epochs before which no stage counts as stuck."""
RISE, LOWER = 0.002, 0.8
"""From one span to the next the mean accuracy rises if it does so by this much, and the mean loss falls if it falls to
this share. Means, since a single epoch is luck where accuracy goes up and down. From epoch 200 to the 10,000th epochs
double less than six times: a loss that falls more slowly would not come to a quarter."""

Status = Literal["training", "done", "max-epochs", "plateau", "diverged", "given-up"]


@dataclass(frozen=True)
class Progress:
    """How far a stage has come; what an interrupted stage goes on from, beside weights and optimizer."""

    epochs: int = 0
    """Epochs that are over."""
    steps: int = 0
    """Optimizer updates; a SAM update counts one."""
    accuracy: float = 0.0
    """Mean of the last whole epoch's per-batch accuracies, in [0, 1]."""
    seconds: float = 0.0
    status: Status = "training"
    batches: int = 0
    """Batches done in the epoch that is under way: whole segments."""
    accuracy_sum: float = 0.0
    """Of these batches' accuracies."""
    loss_sum: float = 0.0
    """Of their losses."""
    span_accuracy: float = 0.0
    """Sum of the accuracies of the epochs in the span that is under way."""
    span_loss: float = 0.0
    """Of their losses."""
    before_accuracy: float = -1.0
    """Mean accuracy of the epochs in the span before."""
    before_loss: float = math.inf
    """Of their losses."""
    is_stuck: bool = False
    """Whether the last span, of those from `PATIENCE` epochs on, brought neither more accuracy nor less loss than the
    one before: a plateau."""
    joules: float | None = 0.0
    """Energy that training took; None where nothing counts it."""

    @property
    def span_begin(self) -> int:
        """The epoch at which the span that is under way began."""
        return 0 if self.epochs < FIRST_SPAN else FIRST_SPAN * 2 ** ((self.epochs // FIRST_SPAN).bit_length() - 1)

    @property
    def is_slowing(self) -> bool:
        """Whether half of a span that may end the stage has brought no rise so far."""
        done = self.epochs - self.span_begin
        return self.epochs >= PATIENCE // 2 and 2 * done >= self.span_begin and not self._rises(done)

    def _rises(self, epochs: int) -> bool:
        """Whether a span of so many epochs is better than the one before."""
        higher = self.span_accuracy / epochs >= self.before_accuracy + RISE
        return higher or self.span_loss / epochs <= LOWER * self.before_loss

    def with_epoch(self, accuracy: float, loss: float) -> Progress:
        """The progress after one more epoch, with a new span if one has ended with it."""
        held = replace(
            self,
            epochs=self.epochs + 1,
            accuracy=accuracy,
            span_accuracy=self.span_accuracy + accuracy,
            span_loss=self.span_loss + loss,
        )
        if held.epochs != held.span_begin:
            return held
        length = held.epochs - self.span_begin
        return replace(
            held,
            span_accuracy=0.0,
            span_loss=0.0,
            before_accuracy=held.span_accuracy / length,
            before_loss=held.span_loss / length,
            is_stuck=held.epochs >= PATIENCE and not held._rises(length),
        )


@dataclass(frozen=True)
class Hooks:
    """What else happens in a stage; each is optional."""

    after_backward: Callable[[], None] | None = None
    """With the gradients in place, before the update; a group's ``lr`` that it changes holds for that update alone."""
    after_step: Callable[[], None] | None = None
    after_epoch: Callable[[Progress], None] | None = None
    save_due: Callable[[], bool] | None = None
    """Asked at the end of each segment; only a save waits for the device there."""
    save: Callable[[Progress], None] | None = None
    """Told what to go on from, with the optimizer's own learning rate in place."""
    watched: dict[str, Tensor] | None = None
    """Where the network's forward hooks put activations, detached, for the first two."""


SeedOf = Callable[[int, int], int]
"""``seed_of(epoch, segment)``, both from 0."""


def train_stage(
    model: nn.Module,
    optimizer: Optimizer,
    examples: Examples,
    recipe: Recipe,
    *,
    seed_of: SeedOf,
    hooks: Hooks | None = None,
    start: Progress | None = None,
    team: Team | None = None,
) -> Progress:
    """Train a network on everything seen so far, until the stopping rule holds.

    Nothing waits for the device within an epoch unless a save is due: accuracies are read once, at its end.

    Args:
        model: The network, trained in place.
        optimizer: Its optimizer; its learning rates are the recipe's full rates, and the same when the stage ends.
        examples: All examples seen so far.
        recipe: Batch size, stopping rule, schedule, augmentation and precision.
        seed_of: ``seed_of(epoch, segment)`` gives the seed of all randomness in `SEGMENT` batches, that of segment 0
            also the epoch's order. It is asked at the start of each segment, and for segment 0 where an epoch goes on.
        hooks: What else happens.
        start: Where an interrupted stage had come to.
        team: The processes that train it together, each on its share of every batch; ``seed_of`` and what the hooks
            do to the network must be the same in all of them.

    Returns:
        Steps, epochs and the last epoch's accuracy; status ``diverged`` if loss or weights became non-finite.
    """
    hooks = hooks or Hooks()
    progress = start or Progress()
    slices = batch_slices(len(examples), recipe.batch_size, normalised=bool(batch_norms(model)))
    team = team or Team()
    shares = Shares(model, team)
    step = make_step(
        model,
        optimizer,
        precision=recipe.precision,
        captured=recipe.captured,
        label_smoothing=recipe.label_smoothing,
        clip=recipe.clip,
        after_backward=hooks.after_backward,
        after_step=hooks.after_step,
        shares=shares if team.size > 1 else None,
        watched=hooks.watched,
    )
    meter = EnergyMeter(examples.mean.device if team.size == 1 else torch.device("meta"))
    stage = _Stage(step, shares, team.rank, optimizer, examples, slices, recipe, seed_of, hooks, meter)
    model.train()
    with freed_memory_kept(examples.mean.device), laid_out(model, examples, wanted=recipe.channels_last):
        while progress.status == "training":
            progress = _closed(stage.train_epoch(progress), len(slices))
            progress = replace(progress, status=_status(progress, recipe, model), loss_sum=0.0)
            if hooks.after_epoch is not None:
                hooks.after_epoch(progress)
            if progress.status == "training" and (save := _due(hooks)) is not None:
                save(progress)
    return progress


@dataclass(frozen=True, eq=False)
class _Stage:
    """What stays while a stage is trained."""

    step: Step
    shares: Shares
    rank: int
    optimizer: Optimizer
    examples: Examples
    slices: list[slice]
    recipe: Recipe
    seed_of: SeedOf
    hooks: Hooks
    meter: EnergyMeter

    def train_epoch(self, progress: Progress) -> Progress:
        """A pass over shuffled examples, or what is left of it; all its batches are counted, nothing is concluded."""
        began, _ = time.perf_counter(), self.meter.since_last()
        number, batches = progress.epochs, len(self.slices)
        epoch = self.examples.shuffled(torch.Generator().manual_seed(self.seed_of(number, 0)))
        losses, accuracies = (torch.zeros(batches, device=self.examples.mean.device) for _ in range(2))
        for first in range(progress.batches, batches, SEGMENT):
            segment = range(first, min(first + SEGMENT, batches))
            self._train_segment(epoch, number, segment, losses, accuracies)
            save = _due(self.hooks) if segment.stop < batches else None
            if save is not None or segment.stop == batches:
                new = slice(progress.batches, segment.stop)
                progress = _counted(progress, losses[new], accuracies[new])  # waits for the device
                progress = replace(
                    progress,
                    seconds=progress.seconds + time.perf_counter() - began,
                    joules=_sum(progress.joules, self.meter.since_last()),
                )
            if save is not None:
                save(progress)
                began, _ = time.perf_counter(), self.meter.since_last()
        return progress

    def _train_segment(self, epoch: Examples, number: int, segment: range, losses: Tensor, accuracies: Tensor) -> None:
        """Some batches of an epoch; the optimizer's learning rates are its own again afterwards."""
        torch.manual_seed(self.seed_of(number, segment.start // SEGMENT) + self.rank)
        changes = [AUGMENTATIONS[name] for name in self.recipe.augment]
        groups, schedule = self.optimizer.param_groups, self.recipe.rates
        rates = [group["lr"] for group in groups]
        try:
            with self.shares.whole_batch_norm(), tf32(self.recipe.precision != "fp32", losses.device):
                for batch in segment:
                    for group, rate in zip(groups, rates, strict=True):  # a method may have changed it for one update
                        group["lr"] = schedule.rate(rate, number, batch, len(self.slices)) if schedule else rate
                    share = epoch.batch(self.shares.of(self.slices[batch]), changes)
                    losses[batch], accuracies[batch] = self.step(*share)
            done = slice(segment.start, segment.stop)
            self.shares.sum_measured(losses[done], accuracies[done], self.slices[done])
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate


def _sum(joules: float | None, more: float) -> float | None:
    return None if joules is None or math.isnan(more) else joules + more


def _due(hooks: Hooks) -> Callable[[Progress], None] | None:
    """What saves the stage, if that is to happen now."""
    return hooks.save if hooks.save_due is not None and hooks.save_due() else None


def _counted(progress: Progress, losses: Tensor, accuracies: Tensor) -> Progress:
    """Take whole segments into an epoch's sums."""
    return replace(
        progress,
        steps=progress.steps + len(losses),
        batches=progress.batches + len(losses),
        loss_sum=_added(progress.loss_sum, losses),
        accuracy_sum=_added(progress.accuracy_sum, accuracies),
    )


def _added(total: float, values: Tensor) -> float:
    # In float64 and term by term: the same number wherever the epoch was interrupted, and exact for whole batches of a
    # power of two, so that 16 errors in 16,000 examples are 99.9 %.
    for value in values.tolist():
        total += value
    return total


def _closed(progress: Progress, batches: int) -> Progress:
    """The epoch that is under way is over."""
    over = progress.with_epoch(progress.accuracy_sum / batches, progress.loss_sum / batches)
    return replace(over, batches=0, accuracy_sum=0.0)


def _status(progress: Progress, recipe: Recipe, model: nn.Module) -> Status:
    """Whether the stage goes on after an epoch."""
    status: Status = "training"
    if not math.isfinite(progress.loss_sum):
        status = "diverged"
    elif recipe.epochs is not None:
        status = "done" if progress.epochs >= recipe.epochs else "training"
    elif progress.accuracy >= recipe.until:
        status = "done"
    elif progress.epochs >= recipe.max_epochs:
        status = "max-epochs"
    elif progress.is_stuck:
        status = "plateau"
    if status not in ("training", "diverged") and not _finite(model):
        return "diverged"  # the last update came after the last loss
    return status


def _finite(model: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def batch_slices(examples: int, batch_size: int, *, normalised: bool) -> list[slice]:
    """Cut an epoch into batches; the last one is what is left.

    For batch norm a single example that is left joins the batch before it: one example has no variance.

    Returns:
        The batches' positions.

    Raises:
        InputError: If there is no example, or batch norm would only ever see single examples.
    """
    if examples == 0:
        raise InputError("0 examples to train on; every stage needs at least one")
    starts = list(range(0, examples, batch_size))
    if normalised:
        if min(examples, batch_size) == 1:
            raise InputError("batches of one example cannot be batch-normalised; raise --batch-size or --stage-size")
        if examples - starts[-1] == 1:
            starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], examples], strict=True)]
