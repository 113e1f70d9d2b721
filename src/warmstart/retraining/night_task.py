"""A stage of a state as a task: all that has arrived, in stages that end where the promoted ones ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from warmstart.data.images import ImageData
from warmstart.retraining.facts import Facts
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.snapshots import Snapshot
from warmstart.runs.image_task import ImageTask
from warmstart.streams.image_stream import ImageStream, Selection
from warmstart.streams.settings import StreamSettings
from warmstart.training.examples import Examples


@dataclass(frozen=True)
class NightTask(ImageTask):
    """Images with given arrivals."""

    arrivals: tuple[int, ...] = ()
    """How many examples each stage brought, the candidate's last."""

    @property
    def held_out(self) -> Examples:
        """What is tested."""
        return self._test

    @cached_property
    def _only_stream(self) -> ImageStream:
        positions = torch.arange(len(self.images.train_labels)).split(list(self.arrivals))
        return ImageStream(positions, Selection("test", None))

    def _seen(self, seed: int) -> Iterator[int]:
        """Of the candidate's stage alone: earlier ones are not trained again."""
        yield self._count(self._only_stream.arrival(len(self.arrivals)).train)

    def _stream(self, seed: int) -> ImageStream:
        return self._only_stream

    def _select(self, chosen: Selection) -> Examples:
        """The examples in the memory of all: what has arrived by a stage is the first of the training part."""
        return self._train.at(slice(0, self._count(chosen))) if chosen.part == "train" else self._test


def night_task(
    facts: Facts,
    classes: tuple[str, ...],
    settings: RetrainSettings,
    *,
    train: Snapshot,
    test: Snapshot,
    arrivals: tuple[int, ...],
) -> NightTask:
    """The task of a stage."""
    images = ImageData("retrain", train.images, train.labels, test.images, test.labels, classes)
    return NightTask(
        images,
        facts.model,
        settings,
        StreamSettings.of({"order": "given"}),
        settings.device,
        arrivals=_without_gaps(arrivals),
        mean=facts.mean,  # the first stage's, which the weights know
        std=facts.std,
    )


def _without_gaps(arrivals: Sequence[int]) -> tuple[int, ...]:
    """Arrivals where a stage of which all was withdrawn has one example of the largest: the line has as many stages."""
    filled = list(arrivals)
    for place, count in enumerate(filled):
        largest = max(range(len(filled)), key=filled.__getitem__)
        if count == 0 and filled[largest] > 1:
            filled[place], filled[largest] = 1, filled[largest] - 1
    return tuple(filled)
