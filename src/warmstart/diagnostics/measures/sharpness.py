"""The largest eigenvalue of the Hessian of the loss"""

from __future__ import annotations

from collections.abc import Iterator

from warmstart.diagnostics.hessian import MOST
from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import CURVED, Subject


class Sharpness(Measure):
    """Of the loss on the new examples, in eval mode: the eigenvalue of the largest absolute value."""

    name = "sharpness"
    summary = "largest eigenvalue (by absolute value) of the loss's Hessian on the new examples"
    source = "Lewkowycz et al. 2020, arXiv 2003.02218; Lyle et al., ICML 2023, arXiv 2303.01486"
    cost = f"up to {MOST} times two passes forward and back, over {CURVED} examples at most"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's."""
        yield Measurement(self.name, subject.sharpness)
