"""The mean size of a weight:  mean |w_i|"""

from __future__ import annotations

from collections.abc import Iterator

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError


class WeightMagnitude(Measure):
    """Unlike the length of all weights it does not grow with the network's width."""

    name = "weight-magnitude"
    summary = "mean |w_i| over all parameters, those of biases and norm layers included, at least 0"
    source = "Dohare et al., Nature 2024, and their code (compute_average_weight_magnitude)"
    cost = "no pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's, then each parameter's."""
        sizes = {name: p.detach().abs().double() for name, p in subject.model.named_parameters()}
        for name, size in sizes.items():
            if not bool(size.isfinite().all()):
                raise InputError(f"{name} holds NaN or infinite weights")
        whole = sum(float(size.sum()) for size in sizes.values()) / sum(size.numel() for size in sizes.values())
        return self.whole_and_layers(whole, {name: float(size.mean()) for name, size in sizes.items()})
