"""The stable rank of weights:  ||W||_F^2 / ||W||_2^2"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from torch import Tensor

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject


class StableRank(Measure):
    """How many directions a weight uses, by energy, as a share of those that its shape allows."""

    name = "stable-rank"
    summary = "||W||_F^2 / ||W||_2^2, over the largest rank possible, 0 to 1; mean of layers"
    source = "Rudelson and Vershynin, J. ACM 2007, arXiv math/0503442"
    cost = "no pass; singular values of each weight"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The mean over layers, then each layer's."""
        ranks = {name: stable_rank(sigma) / len(sigma) for name, sigma in subject.singular_values.items()}
        return self.whole_and_layers(fmean(ranks.values()), ranks)


def stable_rank(sigma: Tensor) -> float:
    """From 1 to the number of singular values; 0 if all are 0."""
    return float((sigma / sigma.max()).square().sum()) if sigma.max() > 0 else 0.0
