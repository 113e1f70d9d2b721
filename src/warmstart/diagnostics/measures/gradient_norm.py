"""The length of the gradient on previous, new and all examples:  ||g||"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from warmstart.batches import examples_in
from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Gradients, Subject
from warmstart.errors import InputError


class GradientNorm(Measure):
    """At a stage's start: a warm start has learned the previous examples by heart, so their gradient is small.

    The code of Shin et al. (get_gradnorm) takes the same weights, in train mode, with each batch's own statistics, and
    the norm of the sum of the batches' gradients: theirs is about as many times this one as there are batches.
    """

    name = "gradient-norm"
    summary = "length of the mean loss's gradient by all linear and conv weights, on previous, new and all examples"
    source = "Ash and Adams 2020, arXiv 1910.08475; Shin et al., arXiv 2410.23495 (the sum over batches, in train mode)"
    cost = "1 forward and backward pass"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """New; and previous and all, where there are previous examples."""
        gradients, before = subject.new_gradients, subject.previous_gradients
        new = _of_weights(subject, gradients)
        yield Measurement(f"{self.name}[new]", _norm(new))
        if before is not None:
            previous = _of_weights(subject, before)
            yield Measurement(f"{self.name}[previous]", _norm(previous))
            sizes = [sum(map(examples_in, batches)) for batches in (subject.previous, subject.batches)]
            share = sizes[0] / sum(sizes)
            mixed = {name: (1 - share) * mean for name, mean in new.items()}
            for name, mean in previous.items():  # examples may reach different parameters, as of experts
                mixed[name] = share * mean + mixed.get(name, 0)
            yield Measurement(f"{self.name}[all]", _norm(mixed))


def _of_weights(subject: Subject, gradients: Gradients) -> Mapping[str, Tensor]:
    found = {name: gradients.mean[name] for name in subject.weights if name in gradients.mean}
    if not found:
        raise InputError("the loss reaches no layer's weights")
    return found


def _norm(gradients: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients.values()))
