"""The largest eigenvalue of a Hessian, by the power method:  v <- H v / ||H v||"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from warmstart.errors import InputError

MOST, NEAR = 50, 1e-3
"""Products with the Hessian at most, and the relative change below which the eigenvalue counts as found."""


def largest_eigenvalue(losses: Sequence[tuple[Tensor, float]], weights: Sequence[Tensor]) -> float:
    """The eigenvalue of the largest absolute value, from a start that is always the same.

    Args:
        losses: Losses with their graphs, each with its share; the Hessian is that of their weighted sum.
        weights: What it is taken with respect to.

    Returns:
        The eigenvalue; 0 for a Hessian of zeros.

    Raises:
        InputError: If the sum is linear in all weights.
    """
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w) for w in weights]
    gradients: list[Tensor | None] = [None] * len(weights)
    for loss, share in losses:
        own = torch.autograd.grad(loss * share, weights, create_graph=True, allow_unused=True)
        gradients = [b if a is None else a if b is None else a + b for a, b in zip(gradients, own, strict=True)]
    curved = [
        (slope, weight, v)
        for slope, weight, v in zip(gradients, weights, vector, strict=True)
        if slope is not None and slope.requires_grad
    ]
    if not curved:
        raise InputError("the loss is linear in all weights, so it has no curvature")
    slopes, weights, vector = (list(column) for column in zip(*curved, strict=True))
    eigenvalue = 0.0
    for _ in range(MOST):
        length = float(torch.stack([v.double().norm() for v in vector]).norm())
        if length == 0:
            return 0.0
        vector = [v / length for v in vector]
        product = torch.autograd.grad(slopes, weights, vector, retain_graph=True, allow_unused=True)
        turned = [torch.zeros_like(w) if p is None else p.detach() for w, p in zip(weights, product, strict=True)]
        parts = [float((v.double() * t.double()).sum()) for v, t in zip(vector, turned, strict=True)]
        before, eigenvalue, vector = eigenvalue, sum(parts), turned
        if abs(eigenvalue - before) <= NEAR * abs(eigenvalue):
            break
    return eigenvalue
