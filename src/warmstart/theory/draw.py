"""What nature draws: each feature's probability, and which examples carry which features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmstart.theory.setting import Setting

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


def draw(setting: Setting, seed: int) -> Draw:
    """Draw probabilities and examples.

    A stream of fewer stages is the beginning of a longer one.

    Args:
        setting: How many of what.
        seed: Decides everything.

    Returns:
        The data of all stages.
    """
    rng = np.random.default_rng([seed, _PROBABILITIES])
    shape = (setting.classes, setting.features)
    probabilities = -np.sort(-setting.max_probability * rng.random(shape), axis=1)
    carried = []
    for label in range(setting.classes):
        rng = np.random.default_rng([seed, _EXAMPLES, label])
        count = arrived(setting, label, setting.stages)
        carries = rng.random((count, setting.features), dtype=np.float32) < probabilities[label]
        carried.append(np.ascontiguousarray(carries.T))  # learning reads it feature by feature
    return Draw(probabilities, tuple(carried))


def arrived(setting: Setting, label: int, stages: int) -> int:
    """How many examples of a class have arrived.

    Args:
        setting: Classes, and examples a stage.
        label: The class.
        stages: After so many stages.

    Returns:
        The number of i < stages * examples with i mod C = label.
    """
    return (stages * setting.examples - label + setting.classes - 1) // setting.classes
