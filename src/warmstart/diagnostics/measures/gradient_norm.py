"""The length of the gradient on previous, new and all examples:  ||g||"""

from __future__ import annotations

import math
from collections.abc import Iterator

from warmstart.batches import examples_in
from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject


class GradientNorm(Measure):
    """At a stage's start: a warm start has learned the previous examples by heart, so their gradient is small."""

    name = "gradient-norm"
    summary = "length of the loss's gradient in eval mode, on previous, new and all examples"
    source = "Ash and Adams, NeurIPS 2020, arXiv 1910.08475; Shin et al., arXiv 2410.23495"
    cost = "1 forward and backward pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """New; and previous and all, where there are previous examples."""
        new, previous = subject.new_gradients, subject.previous_gradients
        yield Measurement(f"{self.name}[new]", math.sqrt(new.squared_norm))
        if previous is not None:
            yield Measurement(f"{self.name}[previous]", math.sqrt(previous.squared_norm))
            sizes = [sum(map(examples_in, batches)) for batches in (subject.previous, subject.batches)]
            share = sizes[0] / sum(sizes)
            mixed = {name: (1 - share) * mean for name, mean in new.mean.items()}
            for name, mean in previous.mean.items():  # examples may reach different parameters, as of experts
                mixed[name] = share * mean + mixed.get(name, 0)
            squares = (float(mean.double().square().sum()) for mean in mixed.values())
            yield Measurement(f"{self.name}[all]", math.sqrt(sum(squares)))
