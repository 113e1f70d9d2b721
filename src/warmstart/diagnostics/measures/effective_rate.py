"""The rate at which scale-free weights turn:  lr / ||w||^2"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from warmstart.diagnostics.measure import Measure, Measurement
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError


class EffectiveRate(Measure):
    """Behind norm layers the scale of weights sets nothing but this; shrinking by s raises it by 1/s^2."""

    name = "effective-rate"
    summary = "learning rate over ||w||^2 of a layer, SGD's effective rate behind norm layers; geometric mean of layers"
    source = "van Laarhoven 2017, arXiv 1706.05350; Lyle et al. 2025, arXiv 2507.20057"
    cost = "no pass; needs optimizer="

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """The mean over layers, then each layer's."""
        if subject.rates is None:
            raise InputError("the learning rate is not known: give optimizer=")
        named = dict(subject.model.named_parameters())
        found = {}
        for name, weight in subject.weights.items():
            rate, square = subject.rates.get(named[name], 0.0), float(weight.double().square().sum())
            if rate > 0 and square > 0:
                found[name] = rate / square
        if not found:
            raise InputError("no layer has a learning rate and weights that are not zero")
        return self.whole_and_layers(math.exp(fmean(map(math.log, found.values()))), found)
