"""The random draws: each feature's probability, and which examples carry which features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmstart.theory.settings import DiscreteSettings

Bools = NDArray[np.bool_]

_PROBABILITIES, _EXAMPLES = range(2)
"""What randomness is for; never the method, so that all methods see the same data."""


@dataclass(frozen=True, eq=False)
class Draw:
    """One seed's data. Example i of the stream, counted over all stages, is of class i mod C."""

    probabilities: NDArray[np.float64]
    """(C, K), each row sorted from the most frequent feature to the rarest."""
    carried: tuple[Bools, ...]
    """For each class (K, examples): which of the class's features an example carries, in the order of arrival."""


def draw(settings: DiscreteSettings, seed: int) -> Draw:
    """Draw all stages' data; a stream of fewer stages is the beginning of a longer one."""
    rng = np.random.default_rng([seed, _PROBABILITIES])
    shape = (settings.classes, settings.features)
    probabilities = -np.sort(-settings.max_probability * rng.random(shape), axis=1)
    carried = []
    for label in range(settings.classes):
        rng = np.random.default_rng([seed, _EXAMPLES, label])
        count = arrived(settings, label, settings.stages)
        carries = rng.random((count, settings.features), dtype=np.float32) < probabilities[label]
        carried.append(np.ascontiguousarray(carries.T))  # learning reads it feature by feature
    return Draw(probabilities, tuple(carried))


def arrived(settings: DiscreteSettings, label: int, stages: int) -> int:
    """How many examples of a class have arrived after some stages: i < stages * examples with i mod C = label."""
    return (stages * settings.examples - label + settings.classes - 1) // settings.classes
