"""Measuring a trained network: loss, each example's correctness, and batch-norm statistics recalibrated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from warmstart.layers.recalibration import recalibrate_
from warmstart.losses import training_loss
from warmstart.network import eval_mode, saved_buffers
from warmstart.precision import in_fp32
from warmstart.training.examples import Examples
from warmstart.training.layout import laid_out

BATCH = 500
"""Examples a forward pass, of small images; batch-norm statistics are means over such parts."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's performance on a test set."""

    accuracy: float
    loss: float
    """Mean cross-entropy, in nats."""
    correct: Tensor
    """bool (N,) on the CPU: which examples it got right."""


@torch.no_grad()
def outputs(
    model: nn.Module, examples: Examples, *, channels_last: bool = False, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a network says in eval mode and full fp32; its modes are put back.

    Yields:
        The output for each batch, and its labels, where the network is.
    """
    size = batch_size or examples.in_a_pass(BATCH)
    with eval_mode(model), in_fp32(examples.mean.device.type), laid_out(model, examples, wanted=channels_last):
        for start in range(0, len(examples), size):
            inputs, labels = examples.batch(slice(start, start + size))
            yield model(inputs), labels


@torch.no_grad()
def evaluate(model: nn.Module, examples: Examples, *, channels_last: bool = False) -> Evaluation:
    """Measure a network on a test set, which is not empty."""
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    for output, labels in outputs(model, examples, channels_last=channels_last):
        losses.append(training_loss(output, labels, reduction="sum"))
        correct.append(output.argmax(1) == labels)
    right = torch.cat(correct).cpu()
    return Evaluation(right.double().mean().item(), torch.stack(losses).sum().item() / len(examples), right)


@contextmanager
def recalibrated(model: nn.Module, examples: Examples, *, channels_last: bool = False) -> Iterator[None]:
    """Measure batch-norm statistics anew on a training set; the running ones are put back at the end.

    Running statistics lag behind the weights where a stage ends after few updates; the difference in accuracy
    tells how much that costs.

    Yields:
        Nothing; the network carries the new statistics.
    """
    put_back = saved_buffers(model)
    try:
        # Equal parts, so that each weighs alike: a last batch of a few examples would have poor statistics.
        parts = max(1, round(len(examples) / examples.in_a_pass(BATCH)))
        bounds = [len(examples) * i // parts for i in range(parts + 1)]
        inputs = ((examples.batch(slice(start, stop))[0], 1) for start, stop in pairwise(bounds))
        with in_fp32(examples.mean.device.type), laid_out(model, examples, wanted=channels_last):
            recalibrate_(model, inputs, lambda model, batch: model(batch))
        yield
    finally:
        put_back()
