"""The largest eigenvalue of the Hessian, by the power method:  v <- H v / ||H v||"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError

MOST, NEAR = 50, 1e-3
"""Products with the Hessian at most, and the relative change below which the eigenvalue counts as found."""


class Sharpness(Measure):
    """Of the loss on the new examples, in eval mode: the eigenvalue of the largest absolute value."""

    name = "sharpness"
    summary = "largest eigenvalue (by absolute value) of the loss's Hessian on the new examples"
    source = "Lewkowycz et al. 2020, arXiv 2003.02218; Lyle et al., ICML 2023, arXiv 2303.01486"
    cost = f"up to {MOST} forward and backward passes, and memory for their graphs"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's."""
        yield Measurement(self.name, largest_eigenvalue(subject))


def largest_eigenvalue(subject: Subject) -> float:
    """The eigenvalue of the largest absolute value, from a start that is always the same; 0 for a Hessian of zeros."""
    weights = [parameter for parameter in subject.model.parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w) for w in weights]
    eigenvalue = 0.0
    with subject.differentiable() as losses:
        gradients: list[Tensor | None] = [None] * len(weights)
        for loss, share in losses:
            own = torch.autograd.grad(loss * share, weights, create_graph=True, allow_unused=True)
            gradients = [b if a is None else a if b is None else a + b for a, b in zip(gradients, own, strict=True)]
        reached = [i for i, gradient in enumerate(gradients) if gradient is not None and gradient.requires_grad]
        if not reached:
            raise InputError("the loss is linear in all weights, so it has no curvature")
        weights, vector = [weights[i] for i in reached], [vector[i] for i in reached]
        slopes = [gradient for gradient in gradients if gradient is not None and gradient.requires_grad]
        for _ in range(MOST):
            length = float(torch.stack([v.double().norm() for v in vector]).norm())
            if length == 0:
                return 0.0
            vector = [v / length for v in vector]
            product = torch.autograd.grad(slopes, weights, vector, retain_graph=True, allow_unused=True)
            turned = [torch.zeros_like(w) if p is None else p for w, p in zip(weights, product, strict=True)]
            parts = [float((v.double() * t.double()).sum()) for v, t in zip(vector, turned, strict=True)]
            before, eigenvalue = eigenvalue, sum(parts)
            vector = [t.detach() for t in turned]
            if abs(eigenvalue - before) <= NEAR * abs(eigenvalue):
                break
    return eigenvalue
