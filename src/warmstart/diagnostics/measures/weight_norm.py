"""The length of all weights:  ||w||"""

from __future__ import annotations

import math
from collections.abc import Iterator

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject


class WeightNorm(Measure):
    """Growing weights lower the effective rate behind norm layers, and saturate without them."""

    name = "weight-norm"
    summary = "length of the weights of all layers, without biases and norm layers"
    source = "Lyle et al., ICML 2023, arXiv 2303.01486"
    cost = "no pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """All together, then each layer's."""
        norms = {name: float(weight.double().norm()) for name, weight in subject.weights.items()}
        return self.whole_and_layers(math.hypot(*norms.values()), norms)
