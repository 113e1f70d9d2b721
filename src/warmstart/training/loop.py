"""Training on one stage until the stopping rule holds.

The rule of Shin et al., NeurIPS 2024 (arXiv 2410.23495): stop when the mean of an epoch's per-batch accuracies,
measured while training, reaches a threshold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from warmstart.errors import InputError
from warmstart.neurons import batch_norms
from warmstart.training.examples import Examples
from warmstart.training.optimizers import step

Status = Literal["training", "done", "max-epochs", "diverged"]


@dataclass(frozen=True)
class Progress:
    """How far a stage has come; what an interrupted stage goes on from, beside the weights."""

    epochs: int = 0
    steps: int = 0
    """Optimizer updates; a SAM update counts one."""
    accuracy: float = 0.0
    """Mean of the last epoch's per-batch accuracies, in [0, 1]."""
    seconds: float = 0.0
    status: Status = "training"


@dataclass(frozen=True)
class Recipe:
    """How a stage is trained."""

    batch_size: int
    until: float = 0.999
    max_epochs: int = 10_000


@dataclass(frozen=True)
class Hooks:
    """What else happens in a stage; each is optional."""

    after_backward: Callable[[], None] | None = None
    """With the gradients in place, before the update."""
    after_step: Callable[[], None] | None = None
    after_epoch: Callable[[Progress], None] | None = None


def train_stage(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    recipe: Recipe,
    *,
    seed_of_epoch: Callable[[int], int],
    hooks: Hooks | None = None,
    start: Progress | None = None,
) -> Progress:
    """Train a network on everything seen so far, until the stopping rule holds.

    Nothing waits for the device within an epoch: accuracies are read once, at its end.

    Args:
        model: The network, trained in place.
        optimizer: Its optimizer.
        examples: All examples seen so far.
        recipe: Batch size and stopping rule.
        seed_of_epoch: Epoch, from 0 -> seed of its order and of all randomness in it, so that an epoch can be
            repeated after an interruption.
        hooks: What else happens.
        start: Where an interrupted stage had come to.

    Returns:
        Steps, epochs and the last epoch's accuracy; status ``diverged`` if loss or weights became non-finite.
    """
    hooks = hooks or Hooks()
    progress = start or Progress()
    slices = batch_slices(len(examples), recipe.batch_size, model)
    model.train()
    while progress.status == "training":
        began = time.perf_counter()
        seed = seed_of_epoch(progress.epochs)
        torch.manual_seed(seed)
        epoch = examples.shuffled(torch.Generator().manual_seed(seed))
        accuracy, loss = _train_epoch(model, optimizer, epoch, slices, hooks)
        progress = replace(
            progress,
            epochs=progress.epochs + 1,
            steps=progress.steps + len(slices),
            accuracy=accuracy,
            seconds=progress.seconds + time.perf_counter() - began,
        )
        if not math.isfinite(loss):
            progress = replace(progress, status="diverged")
        elif accuracy >= recipe.until:
            progress = replace(progress, status="done")
        elif progress.epochs >= recipe.max_epochs:
            progress = replace(progress, status="max-epochs")
        if progress.status in ("done", "max-epochs") and not _finite(model):
            progress = replace(progress, status="diverged")  # the last update came after the last loss
        if hooks.after_epoch is not None:
            hooks.after_epoch(progress)
    return progress


def _train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, epoch: Examples, slices: list[slice], hooks: Hooks
) -> tuple[float, float]:
    """One pass over shuffled examples; mean of the batches' accuracies, and sum of their losses."""
    losses: list[Tensor] = []
    accuracies: list[Tensor] = []
    for index in slices:
        inputs, labels = epoch.batch(index)

        def forward_backward(inputs: Tensor = inputs, labels: Tensor = labels) -> tuple[Tensor, Tensor]:
            output = model(inputs)
            loss = cross_entropy(output, labels)
            loss.backward()
            if hooks.after_backward is not None:
                hooks.after_backward()
            return loss.detach(), output.detach()

        loss, output = step(optimizer, forward_backward)
        if hooks.after_step is not None:
            hooks.after_step()
        losses.append(loss)
        accuracies.append((output.argmax(1) == labels).float().mean())
    return torch.stack(accuracies).mean().item(), torch.stack(losses).sum().item()


def _finite(model: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def batch_slices(examples: int, batch_size: int, model: nn.Module) -> list[slice]:
    """Cut an epoch into batches; the last one is what is left.

    Args:
        examples: Examples in the epoch.
        batch_size: Examples a batch.
        model: If it has batch norm, a single example that is left joins the batch before it: one example has no
            variance.

    Returns:
        The batches' positions.

    Raises:
        InputError: If there is no example, or batch norm would only ever see single examples.
    """
    if examples == 0:
        raise InputError("0 examples to train on; every stage needs at least one")
    starts = list(range(0, examples, batch_size))
    if batch_norms(model):
        if min(examples, batch_size) == 1:
            raise InputError("batches of one example cannot be batch-normalised; raise --batch-size or --stage-size")
        if examples - starts[-1] == 1:
            starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], examples], strict=True)]
