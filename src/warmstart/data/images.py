"""What every reader returns: images in memory as uint8, their labels, and the names of the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.decoding.cache import map_images
from warmstart.errors import InputError
from warmstart.image_size import ImageSize

_CHUNK = 2**24  # pixels counted at a time: torch.bincount widens its input
_PIECE = 2**26  # bytes hashed at a time


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled image data set on the CPU, perhaps with a test part; InputError if its tensors do not fit together."""

    name: str
    """``digits``, a folder's name or a hub name; goes into the ``data`` column of results.csv."""
    train_images: Tensor
    """uint8 (N, C, H, W) with C = 1 (grey) or 3 (RGB)."""
    train_labels: Tensor
    """int64 (N,), indices into ``classes``."""
    test_images: Tensor
    """Of the data set's own test part; none where it has no such part."""
    test_labels: Tensor
    classes: tuple[str, ...]
    arrived: Sequence[str] | None = None
    """When each training example arrived, where the data say so: texts that sort as the times do."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read, such as images that were left out."""
    file: Path | None = None
    """The file that the images are mapped from, training images first; None if they are in memory."""
    bits: int = 16
    """White was 2^bits - 1 in images of 16 bits; what is read later for the same network must be read likewise."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle images that lie in a file by its name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.file is None:
            return type(self), tuple(values.values())
        values |= {name: tuple(values[name].shape) for name in ("train_images", "test_images")}
        return _from_file, (values,)

    def __post_init__(self) -> None:
        _check_part(self.name, "training", self.train_images, self.train_labels, len(self.classes))
        if self.has_test_part or len(self.test_images) > 0:
            _check_part(self.name, "test", self.test_images, self.test_labels, len(self.classes))
        if self.arrived is not None and len(self.arrived) != len(self.train_labels):
            raise InputError(f"{self.name}: arrived has {len(self.arrived)} entries; give one for each training image")
        if self.has_test_part and self.train_images.shape[1:] != self.test_images.shape[1:]:
            train, test = (
                "x".join(map(str, x.shape[1:])) for x in (self.train_images, self.test_images)
            )  # fmt: skip
            raise InputError(
                f"{self.name}: training images are {train} (channels x height x width), test images {test}; "
                "make them alike, or give --image-size N where only the size differs"
            )

    @property
    def has_test_part(self) -> bool:
        """Whether it has a test part of its own."""
        return len(self.test_labels) > 0

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> ImageSize:
        """Pixels a side; height and width where they differ."""
        height, width = self.train_images.shape[-2:]
        return height if height == width else (height, width)

    @property
    def num_classes(self) -> int:
        """How many classes there are, those without an example included."""
        return len(self.classes)

    @cached_property
    def _histogram(self) -> Tensor:
        """How often each of the 256 values occurs in each channel of the training part: (C, 256)."""
        counts = torch.zeros(self.channels, 256, dtype=torch.int64)
        for images in _pieces(self.train_images, _CHUNK):
            for channel in range(self.channels):
                counts[channel] += torch.bincount(images[:, channel].flatten(), minlength=256)
        return counts

    def channel_mean(self) -> Tensor:
        """Mean of each channel over the training part: float32 (C,), in [0, 1]."""
        return self._moments()[0].float()

    def channel_std(self) -> Tensor:
        """Population standard deviation in the same form; 1 for a constant channel, so that one can divide by it."""
        _, variance = self._moments()
        return torch.where(variance > 0, variance.sqrt(), 1.0).float()

    def _moments(self) -> tuple[Tensor, Tensor]:
        values = torch.arange(256, dtype=torch.float64) / 255
        share = self._histogram.double() / self._histogram.sum(dim=1, keepdim=True)
        mean = share @ values
        variance = (share * (values - mean[:, None]).square()).sum(dim=1)
        constant = self._histogram.max(dim=1).values == self._histogram.sum(dim=1)  # rounding leaves 1e-32
        return mean, variance.masked_fill(constant, 0.0)

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all that it holds: resuming on changed data is noticed."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(repr(tuple(tensor.shape)).encode())
            for piece in _pieces(tensor, _PIECE):
                digest.update(np.ascontiguousarray(piece.numpy()).data if len(piece) else b"")
        digest.update("".join(f"\n{time}" for time in self.arrived or ()).encode())
        return digest.hexdigest()[:16]


def _from_file(values: dict[str, Any]) -> ImageData:
    train, test = values["train_images"], values["test_images"]
    images = map_images(values["file"], (train[0] + test[0], *train[1:]))
    return ImageData(**{**values, "train_images": images[: train[0]], "test_images": images[train[0] :]})


def _pieces(tensor: Tensor, size: int) -> Iterator[Tensor]:
    """The tensor in pieces of about so many values, so that what lies on a disk is never in memory as a whole."""
    count = max(1, size // max(1, tensor[0].numel() if len(tensor) else 1))
    return iter(tensor.split(count))


def to_uint8(where: str, values: NDArray[Any], top: int, remedy: str) -> NDArray[np.uint8]:
    """Scale numbers in [0, ``top``] to integers in [0, 255]; uint8 is left as it is. ``remedy`` ends the error."""
    if values.dtype != np.uint8:
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= top):  # also where one of them is NaN
            found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
            raise InputError(f"{where} holds {found}; {remedy}")
        values = np.rint(values * (255 / top))
    return values.astype(np.uint8, copy=False)


def _check_part(name: str, part: str, images: Tensor, labels: Tensor, num_classes: int) -> None:
    where = f"{name}: the {part} part"
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in {1, 3}:
        shape = "x".join(map(str, images.shape))
        raise InputError(f"{where} is {images.dtype} {shape}; images must be torch.uint8 (N, C, H, W), C = 1 or 3")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(f"{where} has {len(images)} images; its labels must be int64, one for each")
    if len(images) == 0:
        raise InputError(f"{where} holds no images; add some")
    if 0 in images.shape:
        raise InputError(f"{where} has images without pixels; remove it")
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = int(labels[(labels < 0) | (labels >= num_classes)][0])
        raise InputError(f"{where} has the label {wrong}, but there are {num_classes} classes")
