"""Whether weights point where the loss falls:  cos(w, -g)"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError


class Direction(Measure):
    """What DASH scales by, of whole layers and on the new examples alone."""

    name = "direction"
    summary = "cosine between weights and the negative gradient on the new examples, -1 to 1"
    source = "Shin et al., NeurIPS 2024, arXiv 2410.23495"
    cost = "1 forward and backward pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """All weights as one vector, then each layer's."""
        gradients = subject.new_gradients.mean
        pairs = {
            name: (weight.flatten().double(), -gradients[name].flatten().double())
            for name, weight in subject.weights.items()
            if name in gradients
        }
        if not pairs:
            raise InputError("the loss reaches no layer's weights")
        weights, downhill = (torch.cat(side) for side in zip(*pairs.values(), strict=True))
        return self.whole_and_layers(_cosine(weights, downhill), {name: _cosine(*pair) for name, pair in pairs.items()})


def _cosine(a: Tensor, b: Tensor) -> float:
    """0 where one of them is 0."""
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else 0.0
