"""What is asked of a reader: the size of the images and how they come to it, the columns, what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from warmstart.errors import InputError

OnDecoded = Callable[[int, int], None]
"""Called with the number of images decoded so far and in all."""

GIVEN = "given"
"""The order in which the data are: of rows, or of the names of files."""
EXACT = "exact"
"""The way to fit images that are of the size already; another one cannot be read."""


@dataclass(frozen=True)
class Wanted:
    """How a data set is to be read; the defaults leave everything as it is."""

    size: tuple[int, int] | None = None
    """Height and width."""
    fit: str = "stretch"
    """How images of another shape come to it: one of `FITS`, or `EXACT`."""
    image_column: str | None = None
    label_column: str | None = None
    order: str | None = None
    """What says when an example arrived: a column, or `GIVEN`; None where nobody asks."""
    skip_unreadable: bool = False
    cache: Path | None = None
    """Where decoded images are kept; None keeps them in memory, if they fit."""
    progress: OnDecoded | None = None
    bits: int | None = None
    """Of images of 16 bits, how many are in use; None finds out."""

    @property
    def order_column(self) -> str | None:
        """The column that says when an example arrived, if there is to be one."""
        return None if self.order == GIVEN else self.order

    def fitted(self, image: Image.Image) -> Image.Image:
        """An image in the size that is asked for: bilinear, antialiased."""
        if self.size is None or image.size == self.size[::-1]:
            return image
        if self.fit == EXACT:
            found, wanted = ("x".join(map(str, sides)) for sides in (image.size[::-1], self.size))
            raise InputError(f"{found} pixels (height x width) among images of {wanted}; resize or remove it")
        return FITS[self.fit](image, self.size[::-1])

    def all_fitted(self, images: Tensor) -> Tensor:
        """Do the same to each of uint8 (N, C, H, W); without a size the tensor itself comes back."""
        if self.size is None or tuple(images.shape[-2:]) == self.size:
            return images
        fitted = torch.empty(*images.shape[:2], *self.size, dtype=torch.uint8)
        for image, out in zip(images, fitted, strict=True):
            array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
            pixels = np.array(self.fitted(Image.fromarray(array)))
            out.copy_(torch.from_numpy(pixels).view(*self.size, -1).permute(2, 0, 1))
        return fitted


def _stretched(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)


def _cropped(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def _padded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.pad(image, size, Image.Resampling.BILINEAR)


FITS: dict[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    "stretch": _stretched,
    "crop": _cropped,
    "pad": _padded,
}
"""`crop` keeps the middle, `pad` adds black; both keep proportions."""
