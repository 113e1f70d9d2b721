"""The effective rank of weights:  exp(H(p)),  p_i = sigma_i / sum sigma"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import torch
from torch import Tensor

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject


class EffectiveRank(Measure):
    """The exponential of the entropy of the singular values, as a share of the largest that the shape allows."""

    name = "effective-rank"
    summary = "exp of the entropy of a weight's singular values, over the largest rank possible, 0 to 1; mean of layers"
    source = "Roy and Vetterli, EUSIPCO 2007"
    cost = "no pass; singular values of each weight"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The mean over layers, then each layer's."""
        ranks = {name: effective_rank(sigma) / len(sigma) for name, sigma in subject.singular_values.items()}
        return self.whole_and_layers(fmean(ranks.values()), ranks)


def effective_rank(sigma: Tensor) -> float:
    """From 1 to the number of singular values; 0 if all are 0."""
    if sigma.sum() == 0:
        return 0.0
    return float(torch.special.entr(sigma / sigma.sum()).sum().exp())
