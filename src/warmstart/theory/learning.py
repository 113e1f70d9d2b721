"""Learning in discrete steps: the most frequent feature first, and what is left is memorised through its noise.

Shin, Oh, Cho and Yun, NeurIPS 2024 (arXiv 2410.23495). At each stage, over all examples seen so far:

- An example is *live* (its gradient is not zero) unless it is *done*, with at least tau learned features, or
  *memorised*.
- While some unlearned feature occurs in at least gamma live examples, the one that occurs in most is learned; among
  equals that of the lowest class, then the one of the lowest index.
- Examples that are still live at the end of the stage are memorised.

Features belong to one class, so the order in which classes take turns changes nothing but the order of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.theory.draw import Bools, Draw, arrived
from warmstart.theory.settings import DiscreteSettings


@dataclass(frozen=True)
class Keeps:
    """What a method keeps of the stage before."""

    features: bool
    memorised: bool


METHODS: Mapping[str, Keeps] = MappingProxyType(
    {
        "cold": Keeps(features=False, memorised=False),
        "warm": Keeps(features=True, memorised=True),
        "ideal": Keeps(features=True, memorised=False),
    }
)


@dataclass(frozen=True)
class Step:
    """One feature is learned."""

    label: int
    """Its class."""
    feature: int
    count: int
    """Live examples in which it occurred."""
    done: int
    """Examples that have tau learned features with it, and drop out."""


@dataclass(frozen=True)
class Outcome:
    """A stage's result."""

    learned_features: int
    """Over all classes."""
    nonzero_gradient_examples: int
    """Live examples at the start, the proxy for training time."""
    memorised_examples: int
    """At the end, those of earlier stages included that a method has kept."""
    test_accuracy: float
    """Expected over test examples, exactly: one with tau learned features is right, any other guessed."""
    steps: tuple[Step, ...]
    """In the order of learning."""


def learn_stream(settings: DiscreteSettings, data: Draw, method: str) -> list[Outcome]:
    """Learn from all stages of a stream with a method of `METHODS`: one outcome a stage."""
    classes = [_learn_class(settings, data, label, METHODS[method]) for label in range(settings.classes)]
    learned = np.stack([stages.learned for stages in classes], axis=1)
    right = recognised(data.probabilities, learned, settings.tau).mean(axis=1)
    return [
        Outcome(
            learned_features=int(learned[stage].sum()),
            nonzero_gradient_examples=sum(stages.live[stage] for stages in classes),
            memorised_examples=sum(stages.memorised[stage] for stages in classes),
            test_accuracy=float(right[stage] + (1 - right[stage]) / settings.classes),
            # Within a class counts never rise, so sorting merges the classes' orders.
            steps=tuple(
                sorted((step for stages in classes for step in stages.steps[stage]), key=lambda s: (-s.count, s.label))
            ),
        )
        for stage in range(settings.stages)
    ]


def recognised(probabilities: NDArray[np.float64], learned: Bools, tau: int) -> NDArray[np.float64]:
    """Return the share of a class's examples with at least tau learned features, exactly: (..., C).

    ``probabilities`` (C, K) and ``learned`` (..., C, K) are by feature. The number of learned features that an example
    carries has a Poisson binomial distribution, of which this is the upper tail.
    """
    chances = np.where(learned, probabilities, 0.0)
    below = np.zeros((*learned.shape[:-1], tau))  # P(exactly 0, 1, ... tau - 1 learned features)
    below[..., 0] = 1
    for feature in range(learned.shape[-1]):
        chance = chances[..., feature, None]
        shifted = np.concatenate([np.zeros_like(chance), below[..., :-1]], axis=-1)
        below = (1 - chance) * below + chance * shifted
    return np.asarray(np.clip(1 - below.sum(axis=-1), 0, 1))


@dataclass(frozen=True)
class _ClassStages:
    """One class over all stages."""

    learned: Bools
    """(J, K), at each stage's end."""
    live: list[int]
    """At each stage's start."""
    memorised: list[int]
    """At each stage's end."""
    steps: list[list[Step]]


def _learn_class(settings: DiscreteSettings, data: Draw, label: int, keeps: Keeps) -> _ClassStages:
    carried = data.carried[label]
    learned = np.zeros(settings.features, dtype=bool)
    memorised = np.zeros(carried.shape[1], dtype=bool)
    record = _ClassStages(np.zeros((settings.stages, settings.features), dtype=bool), [], [], [])
    for stage in range(settings.stages):
        seen = carried[:, : arrived(settings, label, stage + 1)]
        if not keeps.features:
            learned[:] = False
        if not keeps.memorised:
            memorised[:] = False
        done = _count(seen[learned], settings.features) >= settings.tau
        live = np.flatnonzero(~(done | memorised[: seen.shape[1]]))
        steps, left = _learn(seen.take(live, axis=1), learned, settings, label)
        memorised[live[left]] = True
        record.learned[stage] = learned
        record.live.append(len(live))
        record.memorised.append(int(memorised.sum()))
        record.steps.append(steps)
    return record


def _learn(carried: Bools, learned: Bools, settings: DiscreteSettings, label: int) -> tuple[list[Step], Bools]:
    """Learn features in place while there are frequent ones: the steps, and which examples are live at the end."""
    held = _count(carried[learned], settings.features)  # learned features of each example
    live = np.ones(carried.shape[1], dtype=bool)
    counts = np.array([np.count_nonzero(row) for row in carried])  # live examples that carry each feature
    steps: list[Step] = []
    while True:
        feature = int(np.where(learned, -1, counts).argmax())  # the first, so the lowest index, among equals
        count = int(counts[feature])
        if learned[feature] or count < settings.gamma:
            return steps, live
        learned[feature] = True
        held += carried[feature]
        done = np.flatnonzero(live & (held >= settings.tau))
        live[done] = False
        counts -= np.count_nonzero(carried.take(done, axis=1), axis=1)
        steps.append(Step(label, feature, count, len(done)))


def _count(rows: Bools, at_most: int) -> NDArray[Any]:
    """Trues in each column, in the smallest type that holds them: these counts take most of the time."""
    counts: NDArray[Any] = rows.sum(axis=0, dtype=np.min_scalar_type(at_most))
    return counts
