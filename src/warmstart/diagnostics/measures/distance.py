"""How far the weights have come:  ||w - w_0|| / ||w_0||"""

from __future__ import annotations

import math
from collections.abc import Iterator

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError


class Distance(Measure):
    """The distance from initialisation, over the length that the weights had there."""

    name = "distance"
    summary = "||w - w_0|| / ||w_0||, the distance from the weights that it began with, at least 0"
    source = "Lyle et al., ICML 2023, arXiv 2303.01486; Kumar et al. 2023, arXiv 2308.11958"
    cost = "no pass; needs initial="

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """All together, then each layer's."""
        if subject.initial is None:
            raise InputError("the first weights are not known: give initial=")
        moved, began = {}, {}
        for name, weight in subject.weights.items():
            first = subject.initial.get(name)
            if first is None or first.shape != weight.shape:
                raise InputError(f"initial has no first value of {name}")
            first = first.detach().to(weight.device).double()
            moved[name], began[name] = float((weight.double() - first).norm()), float(first.norm())
        whole = math.hypot(*moved.values()) / max(math.hypot(*began.values()), 1e-30)
        return self.whole_and_layers(whole, {name: moved[name] / max(began[name], 1e-30) for name in moved})
