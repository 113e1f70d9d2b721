"""The largest eigenvalue of the Hessian of the loss"""

from __future__ import annotations

from collections.abc import Iterator

from warmstart.diagnostics.hessian import MOST, NEAR
from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import CURVED, Subject


class Sharpness(Measure):
    """Of the loss on the new examples, evenly spread, in eval mode: the eigenvalue of the largest absolute value."""

    name = "sharpness"
    summary = f"largest eigenvalue (by absolute value) of the Hessian on about {CURVED} new examples, within {NEAR:.1%}"
    source = "Lewkowycz et al. 2020, arXiv 2003.02218; Lyle et al., ICML 2023, arXiv 2303.01486"
    cost = f"up to {MOST} forward and two backward passes over about {CURVED} examples"

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The network's."""
        yield Measurement(self.name, subject.sharpness)
