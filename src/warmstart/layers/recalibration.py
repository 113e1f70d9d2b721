"""Batch-norm statistics measured anew, for weights that have changed since they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from warmstart.batches import equal_parts, to_device
from warmstart.layers.norms import batch_norms
from warmstart.network import eval_mode, saved_buffers
from warmstart.precision import in_fp32
from warmstart.undo import afterwards, all_or_nothing, on_failure


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
