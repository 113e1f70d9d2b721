"""The paper's stream: each stage brings new examples that are drawn at random from a data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from warmstart.data.images import ImageData
from warmstart.errors import InputError
from warmstart.streams.settings import StreamSettings
from warmstart.streams.stream import Arrival


@dataclass(frozen=True)
class Selection:
    """Some examples of one part of a data set."""

    part: Literal["train", "test"]
    index: Tensor | None
    """Their positions in the part, in order; None for all of it."""


@dataclass(frozen=True, eq=False)
class RandomDraws:
    """New examples drawn without replacement, as in the paper; measured on the data set's test part.

    InputError if the numbers do not fit the data, it has one class only, or a tested class is in no stage.
    """

    data: ImageData
    settings: StreamSettings
    seed: int
    """The draw depends on it and on the data's size alone."""

    def __post_init__(self) -> None:
        _check(self.data, self.settings)
        _check_test_classes(self.data, self._drawn, self.seed)

    @property
    def stages(self) -> int:
        """The number of arrivals."""
        return self.settings.stages

    def arrival(self, number: int) -> Arrival[Selection]:
        """All draws up to one stage, that stage's own, and the whole test part."""
        end = number * self.settings.stage_size
        train, new = self._drawn[:end], self._drawn[end - self.settings.stage_size : end]
        return Arrival(Selection("train", train), Selection("train", new), Selection("test", None))

    @cached_property
    def _drawn(self) -> Tensor:
        """Positions in the training part, in order of arrival."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(self.data.train_labels), generator=generator)
        return order[: self.settings.stages * self.settings.stage_size]


def _check(data: ImageData, settings: StreamSettings) -> None:
    stages, stage_size = settings.stages, settings.stage_size
    available, wanted = len(data.train_labels), stages * stage_size
    if wanted > available:
        raise InputError(
            f"{data.name} has {available} training examples, but {stages} stages of {stage_size} need {wanted}; "
            f"{_what_fits(available, stages, stage_size)}"
        )
    if (data.train_labels == data.train_labels[0]).all():
        only = data.classes[int(data.train_labels[0])]
        raise InputError(f"{data.name} has one class only, '{only}', in its training part; give at least two")


def _what_fits(available: int, stages: int, stage_size: int) -> str:
    fits = []
    if available >= stage_size:
        fits.append(f"--stages {available // stage_size}")
    if available >= stages:
        fits.append(f"--stage-size {available // stages}")
    return f"{' or '.join(fits)} would fit" if fits else "ask for less"


def _check_test_classes(data: ImageData, chosen: Tensor, seed: int) -> None:
    """Raise InputError if the network is tested on a class of which it never gets an example."""
    seen = torch.bincount(data.train_labels[chosen], minlength=data.num_classes)
    tested = torch.bincount(data.test_labels, minlength=data.num_classes)
    unseen = [data.classes[i] for i in ((tested > 0) & (seen == 0)).nonzero().flatten().tolist()]
    if unseen:
        others = f" (and {len(unseen) - 1} more)" if len(unseen) > 1 else ""
        raise InputError(
            f"{data.name}: the test class '{unseen[0]}'{others} is in no stage with seed {seed}; "
            "raise --stages or --stage-size, or remove the class from the test part"
        )
