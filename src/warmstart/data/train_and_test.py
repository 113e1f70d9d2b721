"""Which part of a data set trains and which tests, and what the labels found in it mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.data.images import ImageData
from warmstart.errors import InputError
from warmstart.wording import printable

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "dev")
"""In the order of preference; the first that is labelled becomes the test part."""


def order_parts(names: Iterable[str]) -> tuple[str | None, list[str]]:
    """Find the training part, or None, and the candidates for the test part, best first; names may be in any case."""
    found = {name.lower(): name for name in names}
    train = next((found[name] for name in TRAIN_NAMES if name in found), None)
    return train, [found[name] for name in TEST_NAMES if name in found]


def index_labels(
    where: str, train: NDArray[Any], test: NDArray[Any] | None, names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Turn labels, (N,) integers or strings, into int64 indices of both parts, and the class names."""
    # Labels without names are numbered in their sorted order, and are their own names.
    every = train if test is None else np.concatenate([train, test])
    known = np.unique(every) if names is None else np.arange(len(names))
    for part, labels in (("training", train), ("test", test)):
        foreign = np.setdiff1d(labels, known) if labels is not None else known[:0]
        if len(foreign):
            raise InputError(
                f"{where}: the {part} label '{foreign[0]}' is none of the {len(known)} classes; correct or remove it"
            )
    classes = tuple(str(label) for label in (known.tolist() if names is None else names))
    test_index = None if test is None else torch.from_numpy(np.searchsorted(known, test))
    return torch.from_numpy(np.searchsorted(known, train)), test_index, classes


def in_parts(
    name: str,
    images: Tensor,
    labels: Tensor,
    test_images: Tensor | None,
    test_labels: Tensor | None,
    classes: Sequence[str],
    arrived: Sequence[str] | None = None,
) -> ImageData:
    """Make a data set, with or without a test part; its names may hold anything."""
    if test_images is None or test_labels is None:
        test_images, test_labels = images[:0], labels[:0]
    return ImageData(printable(name), images, labels, test_images, test_labels, tuple(map(printable, classes)), arrived)
