"""What a state's first stage fixes for ever: the network, and how an image becomes its input."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from warmstart.data.settings import read_size
from warmstart.decoding.wanted import EXACT, Wanted
from warmstart.errors import InputError
from warmstart.image_size import ImageSize, height_and_width
from warmstart.retraining.index import Index
from warmstart.retraining.settings import RetrainSettings


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

    def wanted(self, settings: RetrainSettings) -> Wanted:
        """How images are read."""
        fit = self.fit if self.resized else EXACT
        return replace(wanted(settings, height_and_width(self.image_size), fit), bits=self.bits)


def tested_on(settings: RetrainSettings) -> str:
    """Which kind of examples is tested."""
    return "a fifth" if settings.test is None else "--test"


def wanted(settings: RetrainSettings, size: tuple[int, int] | None, fit: str) -> Wanted:
    """How images are read."""
    columns = (settings.image_column, settings.label_column)
    return Wanted(size, fit, *columns, skip_unreadable=True)
