"""How far weights are from stretching all directions alike:  rms of sigma_i^2 / mean sigma^2 - 1"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from torch import Tensor

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError


class Isometry(Measure):
    """FIRE's deviation from isometry, made free of the weights' scale and size.

    A convolution is one matrix here, of all that enters an output; FIRE makes that of each kernel position an isometry.
    """

    name = "isometry"
    summary = "rms of sigma_i^2 / mean(sigma^2) - 1 of a weight: 0 for an isometry times a factor; mean of layers"
    source = "FIRE, arXiv 2602.08040 (||W'W - I||_F^2 there; here after scaling, and a singular value)"
    cost = "no pass; singular values of each weight"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The mean over layers, then each layer's."""
        found = {name: deviation(sigma) for name, sigma in subject.singular_values.items() if sigma.any()}
        if not found:
            raise InputError("all weights are zero")
        return self.whole_and_layers(fmean(found.values()), found)


def deviation(sigma: Tensor) -> float:
    """0 where all singular values are equal."""
    squares = sigma.square()
    return float((squares / squares.mean() - 1).square().mean().sqrt())
