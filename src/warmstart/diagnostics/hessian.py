"""The largest eigenvalue of a Hessian, by the power method:  v <- H v / ||H v||"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from warmstart.errors import InputError

MOST, NEAR = 50, 0.01
"""Products with the Hessian at most, and the residual ||H v - l v|| / |l| at which l counts as found: so near to it
there is an eigenvalue."""


def largest_eigenvalue(losses: Callable[[], Iterable[tuple[Tensor, float]]], weights: Sequence[Tensor]) -> float:
    """The eigenvalue of the largest absolute value, from a start that is always the same.

    Args:
        losses: Gives losses with their graphs, each with its share; the Hessian is that of their weighted sum. It is
            called for each product, and only one loss's graph is held at a time.
        weights: What it is taken with respect to.

    Returns:
        The eigenvalue; 0 for a Hessian of zeros.

    Raises:
        InputError: If the sum is linear in all weights.
    """
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w) for w in weights]
    eigenvalue = 0.0
    for _ in range(MOST):
        length = _length(vector)
        if length == 0:
            return 0.0
        vector = [v / length for v in vector]
        turned = _product(losses(), weights, vector)
        eigenvalue = sum(float((v.double() * t.double()).sum()) for v, t in zip(vector, turned, strict=True))
        residual = _length([t.double() - eigenvalue * v.double() for v, t in zip(vector, turned, strict=True)])
        vector = turned
        if residual <= NEAR * abs(eigenvalue):
            break
    return eigenvalue


def _product(
    losses: Iterable[tuple[Tensor, float]], weights: Sequence[Tensor], vector: Sequence[Tensor]
) -> list[Tensor]:
    """H v, the gradient of g v, loss by loss."""
    total = [torch.zeros_like(weight) for weight in weights]
    curved = False
    for loss, share in losses:
        slopes = torch.autograd.grad(loss * share, weights, create_graph=True, allow_unused=True)
        held = [
            (slope, v) for slope, v in zip(slopes, vector, strict=True) if slope is not None and slope.requires_grad
        ]
        if not held:
            continue
        curved = True
        along, directions = (list(column) for column in zip(*held, strict=True))
        for into, part in zip(total, torch.autograd.grad(along, weights, directions, allow_unused=True), strict=True):
            if part is not None:
                into += part.detach()
    if not curved:
        raise InputError("the loss is linear in all weights, so it has no curvature")
    return total


def _length(vector: Sequence[Tensor]) -> float:
    return float(torch.stack([part.double().norm() for part in vector]).norm())
