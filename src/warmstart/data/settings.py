"""The settings that say which images are read, and how."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ValidationInfo, field_validator, model_validator

from warmstart.errors import InputError, require
from warmstart.setting import Setting
from warmstart.settings import Settings

LARGEST_IMAGE = 4096
"""Pixels a side; far above what the networks here are made for, so that more is taken for a typing error."""


FITS = ("stretch", "crop", "pad")


def read_size(size: int | str | tuple[int, int] | None) -> tuple[int, int] | None:
    """A size as (height, width): a whole number is that of a square, and a text may be ``48x64``."""
    if size is None:
        return None
    text = "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
    match = re.fullmatch(r"(-?\d{1,9})(?:x(-?\d{1,9}))?", text.strip().lower())
    require(match is not None, f"image_size is '{text:.40}'; give N for squares or HxW (height x width), such as 48x64")
    assert match is not None
    height, width = int(match[1]), int(match[2] or match[1])
    for side in (height, width):
        require(side >= 1, f"image_size is {text}; it must be at least 1")
    return height, width


def _image_size(value: Any) -> Any:
    """N for squares, else a text such as ``48x64``."""
    if isinstance(value, int) or value is None:
        return value
    if not isinstance(value, (str, tuple, list)):
        raise InputError(f"image_size is {value!r:.40}; give N for squares or HxW (height x width), such as 48x64")
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value.strip()):
        return int(value)
    sides = read_size(tuple(value) if isinstance(value, list) else value)
    assert sides is not None
    require(max(sides) <= LARGEST_IMAGE, f"image_size is {value}; it must be at most {LARGEST_IMAGE} a side")
    return sides[0] if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


class ImageSettings(Settings):
    """Which images are read, and how they come to one size."""

    title: ClassVar[str] = "The data"

    data: Annotated[
        str,
        Setting(
            "digits; features-and-noise; images by class in folders or an archive; a CSV of paths and labels; "
            "parquet; .npz; CIFAR, SVHN and Tiny-ImageNet as they are downloaded; hf:NAME",
            "NAME|PATH",
            example="some, or leave it out",
        ),
    ] = "digits"
    image_size: Annotated[
        int | str | None,
        BeforeValidator(_image_size),
        Setting(
            "Resize images to N x N pixels, or to height x width",
            "N|HxW",
            at_least=1,
            at_most=LARGEST_IMAGE,
            default="as they are",
        ),
    ] = None
    fit: Annotated[
        str,
        Setting(
            "How images of other proportions come to that size: stretch, crop the middle or pad with black",
            "NAME",
            choices=FITS,
        ),
    ] = "stretch"
    image_column: Annotated[
        str | None, Setting("The images' column of a table", "NAME", default="by type, then by name")
    ] = None
    label_column: Annotated[
        str | None, Setting("The labels' column of a table", "NAME", default="by type, then by name")
    ] = None

    @field_validator("fit")
    @classmethod
    def _with_a_size(cls, value: str, info: ValidationInfo) -> str:
        if value != cls.model_fields["fit"].default and info.data.get("image_size") is None:
            raise InputError(f"fit is {value}, which has no effect without a size; add --image-size N or HxW")
        return value


class DataSettings(ImageSettings):
    """Labelled images."""

    skip_unreadable: Annotated[bool, Setting("Leave out images that cannot be read", "YES|NO")] = False
    cache: Annotated[
        str | None,
        Setting(
            "Keep decoded images in this folder, for the next start",
            "DIR",
            example="a folder",
            default="in memory; in ~/.cache/warmstart if they take more than half of it",
            role="running",
        ),
    ] = None


class PatchSettings(Settings):
    """Synthetic images of patches: features that many images share, and noise that each has of its own."""

    classes: Annotated[int, Setting("Classes", "N", at_least=2)] = 2
    features: Annotated[int, Setting("Features of a class", "N", at_least=1)] = 20
    max_probability: Annotated[
        float, Setting("A feature's probability is drawn from U(0, this)", "X", at_least=0, at_most=1)
    ] = 0.3
    """Each feature has its own."""
    noise: Annotated[float, Setting("Length of an example's noise; a feature's is 1", "X", at_least=0)] = 3.0
    """Root mean square norm of a noise patch."""
    patch: int = 8
    """Pixels a side."""
    grid: int = 5
    """Patches a side of the image."""
    channels: int = 3

    @property
    def size(self) -> int:
        """Values in a patch."""
        return self.channels * self.patch**2

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.features >= self.grid**2:
            raise InputError(
                f"features is {self.features}; an image of {self.grid**2} patches has room for {self.grid**2 - 1}; "
                "lower features"
            )
        if self.classes * self.features >= self.size - self.channels:
            raise InputError(
                f"{self.classes} classes of {self.features} features are {self.classes * self.features}; patches of "
                f"{self.size} values have room for {self.size - self.channels - 1} beside the noise; "
                "lower classes or features"
            )
        return self
