"""The share of units that are all but silent:  mean |a_i| <= tau x the layer's mean"""

from __future__ import annotations

from collections.abc import Iterator

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject

TAU = 0.025


class DormantUnits(Measure):
    """ReDo's dormancy, behind the activation functions of all hidden layers."""

    name = "dormant-units"
    summary = f"share of hidden units whose mean activation is at most {TAU} of their layer's, 0 to 1"
    source = "Sokar et al., ICML 2023, arXiv 2302.12902"
    cost = "1 forward pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """All units together, then each layer's."""
        silent = {name: loud <= TAU * loud.mean() for name, loud in subject.loudness.items()}
        whole = sum(int(layer.sum()) for layer in silent.values()) / sum(map(len, silent.values()))
        return self.whole_and_layers(whole, {name: float(layer.float().mean()) for name, layer in silent.items()})
