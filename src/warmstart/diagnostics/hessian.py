"""The largest eigenvalue of a Hessian by Lanczos' method:  b_k v_(k+1) = H v_k - a_k v_k - b_(k-1) v_(k-1)

Lanczos, J. Res. Nat. Bur. Standards 45, 1950. The eigenvalues of the tridiagonal matrix of a and b approach the extreme
ones of H from inside. No vector is made orthogonal to the older ones, so three are held, not fifty: rounding then finds
an eigenvalue twice, and none that is wrong (Paige, 1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from warmstart.errors import InputError

MOST, NEAR = 50, 0.005
"""Products with the Hessian at most, and the residual ||H y - l y|| / |l| at which l counts as found."""


def largest_eigenvalue(losses: Callable[[], Iterator[tuple[Tensor, float]]], weights: Sequence[Tensor]) -> float:
    """The eigenvalue of the largest absolute value, from a start that is always the same.

    Args:
        losses: Gives, at each call, losses with their graphs, each with its share, one at a time; the Hessian is that
            of their weighted sum.
        weights: What it is taken with respect to.

    Returns:
        The eigenvalue, some eigenvalue being within `NEAR` of it; 0 for a Hessian of zeros.

    Raises:
        InputError: If there are no weights, or the sum is linear in all of them, or its curvature is not finite or not
            found.
    """
    if not weights:
        raise InputError("no weight is trainable")
    generator = torch.Generator().manual_seed(0)
    vector = torch.cat([torch.randn(w.numel(), generator=generator).to(w) for w in weights])
    vector, before = vector / vector.norm(), torch.zeros_like(vector)
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(MOST, len(vector))):
        turned = _product(losses, weights, vector)
        diagonal.append(float(turned @ vector))
        turned -= diagonal[-1] * vector + (beside[-1] * before if beside else 0)
        length = float(turned.norm())
        if not math.isfinite(diagonal[-1] + length):
            raise InputError("the loss's curvature is not finite")
        off = torch.tensor(beside, dtype=torch.float64)
        matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + off.diag(1) + off.diag(-1)
        values, vectors = torch.linalg.eigh(matrix)
        found = int(values.abs().argmax())
        if length * float(vectors[-1, found].abs()) <= NEAR * float(values[found].abs()):
            return float(values[found])
        beside.append(length)
        before, vector = vector, turned / length
    if len(diagonal) == len(vector):  # the matrix is H in another basis
        return float(values[found])
    raise InputError(f"the largest curvature was not found in {MOST} products with the Hessian")


def _product(losses: Callable[[], Iterator[tuple[Tensor, float]]], weights: Sequence[Tensor], vector: Tensor) -> Tensor:
    """H v, the graph of one loss at a time."""
    total, curved = torch.zeros_like(vector), False
    sides = [part.view_as(w).to(w) for part, w in zip(vector.split([w.numel() for w in weights]), weights, strict=True)]
    for loss, share in losses():
        slopes = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        pairs = [(g, v) for g, v in zip(slopes, sides, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            continue
        curved = True
        product = torch.autograd.grad([g for g, _ in pairs], weights, [v for _, v in pairs], allow_unused=True)
        turned = [torch.zeros_like(w) if p is None else p for p, w in zip(product, weights, strict=True)]
        total += share * torch.cat([t.detach().flatten() for t in turned])
    if not curved:
        raise InputError("the loss is linear in all weights, so it has no curvature")
    return total
