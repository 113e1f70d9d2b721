"""The rank of the features that the output layer is given:  the fewest singular values with 99 % of their sum"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import number, within

DELTA = 0.01


@dataclass(frozen=True)
class FeatureRank(Measure):
    """srank of the penultimate features on the new examples, and earlier ones where there are fewer than features."""

    delta: float = DELTA
    """The share of the sum that is left out, above 0 and below 1."""

    name: ClassVar[str] = "feature-rank"
    summary: ClassVar[str] = "singular values of the last hidden features that make 99 % of their sum, 0 to all"
    source: ClassVar[str] = "Kumar et al., ICLR 2021, arXiv 2010.14498 (srank, delta = 0.01)"
    cost: ClassVar[str] = "1 forward pass"

    def __post_init__(self) -> None:
        """Raise InputError unless delta is above 0 and below 1."""
        within("delta", self.delta, 0 < number("delta", self.delta) < 1, "above 0 and below 1")

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's."""
        sigma = subject.feature_values
        share = sigma.cumsum(0) / sigma.sum()
        # Rounding leaves a sum that never quite reaches 1.
        yield Measurement(self.name, float((share < 1 - self.delta - 1e-9).sum() + 1) if sigma.sum() > 0 else 0.0)
