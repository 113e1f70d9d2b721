"""The rank of the features that the output layer is given:  the fewest singular values with 99 % of their sum"""

from __future__ import annotations

from collections.abc import Iterator

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject

DELTA = 0.01


class FeatureRank(Measure):
    """srank of the penultimate features on the new examples, and earlier ones where there are fewer than features."""

    name = "feature-rank"
    summary = "how many singular values of the last hidden features make 99 % of their sum; 0 to the features' number"
    source = "Kumar et al., ICLR 2021, arXiv 2010.14498 (srank, delta = 0.01)"
    cost = "1 forward pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's."""
        sigma = subject.feature_values
        share = sigma.cumsum(0) / sigma.sum()
        # Rounding leaves a sum that never quite reaches 1.
        yield Measurement(self.name, float((share < 1 - DELTA - 1e-9).sum() + 1) if sigma.sum() > 0 else 0.0)
