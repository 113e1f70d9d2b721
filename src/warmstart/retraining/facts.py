"""What a state's first stage fixes for ever: the network, and how an image becomes its input."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from warmstart.data.images import ImageData
from warmstart.data.settings import read_size
from warmstart.decoding.wanted import EXACT, Wanted
from warmstart.errors import InputError
from warmstart.image_size import ImageSize, height_and_width
from warmstart.models.registry import input_range
from warmstart.retraining.index import Index
from warmstart.retraining.reading import Found
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.snapshots import Snapshot
from warmstart.serving.model_folder import ModelCard


@dataclass(frozen=True)
class Facts:
    """The weights have always seen the same preprocessing, and the held-out part has never been trained on."""

    model: str
    image_size: ImageSize
    resized: bool
    """Whether images of other sizes are brought to this one; else they are refused."""
    fit: str
    bits: int
    """Of images of 16 bits, how many are in use."""
    channels: int
    mean: tuple[float, ...]
    """Of each channel of images in [0, 1]."""
    std: tuple[float, ...]
    tested_on: str
    """``a fifth`` of what arrives, or ``--test``."""
    whole_numbers: bool | None
    """Whether the labels of shards are numbers; None where there are no shards."""

    @classmethod
    def read(cls, index: Index) -> Facts | None:
        """Those of a state; None before its first stage."""
        found: dict[str, Any] | None = index.fact("fixed")
        if found is None:
            return None
        for name in ("mean", "std"):
            found[name] = tuple(found[name])
        if isinstance(found["image_size"], list):
            found["image_size"] = tuple(found["image_size"])
        return cls(**found)

    def as_json(self) -> dict[str, Any]:
        """What `read` reads."""
        return asdict(self)

    def check(self, settings: RetrainSettings) -> None:
        """Raise InputError, which names the key, unless the settings agree."""
        told = read_size(settings.image_size)
        own = height_and_width(self.image_size) if self.resized else None
        pairs = (
            ("model", settings.model, self.model),
            ("image_size", told and "x".join(map(str, told)), own and "x".join(map(str, own))),
            ("fit", settings.fit, self.fit),
            ("test", tested_on(settings), self.tested_on),
        )
        for key, now, then in pairs:
            if now != then:
                here, there = (value or "not given" for value in (now, then))
                raise InputError(
                    f"{settings.state}: {key} is {here} now and was {there} at the first stage, which fixed it; choose "
                    "another --state, or the old value"
                )

    def card(self, classes: tuple[str, ...], method: str, about: dict[str, Any]) -> ModelCard:
        """What is written beside the weights of a stage."""
        return ModelCard(
            model=self.model,
            classes=classes,
            channels=self.channels,
            image_size=self.image_size,
            fit=self.fit,
            mean=self.mean,
            std=self.std,
            bits=self.bits,
            method=method,
            about=about,
        )

    def wanted(self, settings: RetrainSettings) -> Wanted:
        """How images are read."""
        fit = self.fit if self.resized else EXACT
        return replace(wanted(settings, height_and_width(self.image_size), fit), bits=self.bits)


def first_facts(settings: RetrainSettings, found: Found, arrived: Snapshot) -> Facts:
    """What the first stage fixes, by its training part."""
    train = arrived if settings.test is not None else arrived.at(~arrived.held_out)
    height, width = found.images.shape[-2:]
    size: ImageSize = height if height == width else (height, width)
    mean, std = torch.zeros(found.channels), torch.ones(found.channels)
    if input_range(settings.model) == "normalised" and len(train):
        classes = tuple(map(str, range(int(train.labels.max()) + 1)))
        part = ImageData("first stage", train.images, train.labels, train.images[:0], train.labels[:0], classes)
        mean, std = part.channel_mean(), part.channel_std()
    return Facts(
        model=settings.model,
        image_size=size,
        resized=settings.image_size is not None,
        fit=settings.fit,
        bits=found.bits,
        channels=found.channels,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        tested_on=tested_on(settings),
        whole_numbers=found.whole_numbers,
    )


def tested_on(settings: RetrainSettings) -> str:
    """Which kind of examples is tested."""
    return "a fifth" if settings.test is None else "--test"


def wanted(settings: RetrainSettings, size: tuple[int, int] | None, fit: str) -> Wanted:
    """How images are read."""
    columns = (settings.image_column, settings.label_column)
    return Wanted(size, fit, *columns, skip_unreadable=True)
