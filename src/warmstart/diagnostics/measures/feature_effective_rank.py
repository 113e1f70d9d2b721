"""The effective rank of the features that the output layer is given:  exp(H(p)),  p_i = sigma_i / sum sigma"""

from __future__ import annotations

from collections.abc import Iterator

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.measures.effective_rank import effective_rank
from warmstart.diagnostics.subject import Subject


class FeatureEffectiveRank(Measure):
    """What Dohare et al. call the effective rank, of the same features as feature-rank."""

    name = "feature-effective-rank"
    summary = "exp of the entropy of the singular values of the last hidden features; 0 to the features' number"
    source = "Roy and Vetterli, EUSIPCO 2007; the effective rank in the code of Dohare et al., Nature 2024"
    cost = "1 forward pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's."""
        yield Measurement(self.name, effective_rank(subject.feature_values))
