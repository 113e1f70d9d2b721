"""The settings that say which images are read, and how."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import model_validator

from warmstart.errors import InputError
from warmstart.settings import Setting, Settings

LARGEST_IMAGE = 4096
"""Pixels a side; far above what the networks here are made for, so that more is taken for a typing error."""


class DataSettings(Settings):
    """Labelled images."""

    title: ClassVar[str] = "The data"

    data: Annotated[
        str,
        Setting(
            "digits; features-and-noise; images by class in folders or an archive; parquet; .npz; CIFAR, SVHN and "
            "Tiny-ImageNet as they are downloaded; hf:NAME",
            "NAME|PATH",
            example="some, or leave it out",
        ),
    ] = "digits"
    image_size: Annotated[
        int | None,
        Setting(
            "Resize images to N x N pixels",
            "N",
            at_least=1,
            at_most=LARGEST_IMAGE,
            remark=", since all images are held in memory",
            default="as they are",
        ),
    ] = None
    image_column: Annotated[
        str | None, Setting("The images' column of a table", "NAME", default="by type, then by name")
    ] = None
    label_column: Annotated[
        str | None, Setting("The labels' column of a table", "NAME", default="by type, then by name")
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
