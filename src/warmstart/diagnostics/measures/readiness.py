"""How much the best single step would gain:  ||g||^4 / (L E||g_B||^2)"""

from __future__ import annotations

from collections.abc import Iterator

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import SAMPLE, Subject
from warmstart.errors import InputError


class Readiness(Measure):
    """Twice a lower bound of what one step of SGD can gain, of a loss of smoothness L: strength times reliability."""

    name = "readiness"
    summary = f"||g||^4 / (L E||g_B||^2), L the sharpness's size, g_B the gradients of {SAMPLE} examples; at least 0"
    source = "Predicting Plasticity in Deep Continual Learning, arXiv 2605.09044; L there is the smoothness"
    cost = "as gradient-norm and sharpness"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's."""
        spread, gradients, smoothness = subject.mean_squared_norm, subject.new_gradients, abs(subject.sharpness)
        if smoothness * spread == 0:
            raise InputError("the loss has no gradient or no curvature")
        yield Measurement(self.name, gradients.squared_norm**2 / (smoothness * spread))
