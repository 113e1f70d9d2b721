"""The rate at which scale-free weights turn:  lr / ||w||^2, and lr / ||w|| where updates do not grow with gradients"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError


class EffectiveRate(Measure):
    """Where a norm layer follows, the scale of weights sets nothing but this; shrinking by s raises it by 1/s^2.

    Of SGD and SAM around it, that is; of AdamW, Muon and all others by 1/s. Momentum is not in it: SGD's adds up to
    1 / (1 - momentum) times the rate. A norm layer behind a sum counts as one behind each of its parts.
    """

    name = "effective-rate"
    summary = "learning rate over ||w||^2 (AdamW, Muon: ||w||) of layers before norm layers; geometric mean"
    source = "van Laarhoven 2017, arXiv 1706.05350; Lyle et al. 2025, arXiv 2507.20057"
    cost = "1 forward pass of 2 examples; needs optimizer="

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The mean over layers, then each layer's."""
        if subject.rates is None:
            raise InputError("the learning rate is not known: give optimizer=")
        named, followed = dict(subject.model.named_parameters()), subject.normalised
        found = {}
        for name, weight in subject.weights.items():
            rate, norm = subject.rates.get(named[name], 0.0), float(weight.double().norm())
            if name in followed and rate > 0 and norm > 0:
                found[name] = rate / norm ** (2 if subject.grows_with_gradient else 1)
        if not found:
            raise InputError("no layer before a norm layer has a learning rate and weights that are not zero")
        return self.whole_and_layers(math.exp(fmean(map(math.log, found.values()))), found)
