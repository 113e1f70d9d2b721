"""The share of units that are all but silent:  mean |a_i| <= tau x the layer's mean"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import number, within

TAU = 0.025


@dataclass(frozen=True)
class DormantUnits(Measure):
    """ReDo's dormancy, behind the activation functions of all hidden layers."""

    tau: float = TAU
    """At least 0; 0 finds dead units alone."""

    name: ClassVar[str] = "dormant-units"
    summary: ClassVar[str] = f"share of hidden units whose mean activation is at most {TAU} of their layer's, 0 to 1"
    source: ClassVar[str] = "Sokar et al., ICML 2023, arXiv 2302.12902"
    cost: ClassVar[str] = "1 forward pass"

    def __post_init__(self) -> None:
        """Raise InputError unless tau is at least 0."""
        within("tau", self.tau, number("tau", self.tau) >= 0, "at least 0")

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """All units together, then each layer's."""
        silent = {name: loud <= self.tau * loud.mean() for name, loud in subject.loudness.items()}
        whole = sum(int(layer.sum()) for layer in silent.values()) / sum(map(len, silent.values()))
        return self.whole_and_layers(whole, {name: float(layer.float().mean()) for name, layer in silent.items()})
