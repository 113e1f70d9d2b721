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

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "dev")
"""In the order of preference; the first that is labelled becomes the test part."""

_TEST_SHARE = 0.2


def order_parts(names: Iterable[str]) -> tuple[str | None, list[str]]:
    """Find the parts of a data set among the names of its folders or splits.

    Args:
        names: The names, in any case.

    Returns:
        The training part, if there is one, and the candidates for the test part, best first.
    """
    found = {name.lower(): name for name in names}
    train = next((found[name] for name in TRAIN_NAMES if name in found), None)
    return train, [found[name] for name in TEST_NAMES if name in found]


def index_labels(
    where: str, train: NDArray[Any], test: NDArray[Any] | None, names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Turn the labels as they were found into indices of classes.

    Args:
        where: The data set, for the error.
        train: (N,) integers or strings.
        test: The same for the test part.
        names: What the integers 0, 1, ... are called. Without it the labels that occur in the training part
            are numbered in their own order and called what they are.

    Returns:
        The labels of both parts as int64 indices, and the class names.

    Raises:
        InputError: If a label has no name, or a test label occurs in no training example.
    """
    known = np.unique(train) if names is None else np.arange(len(names))
    for part, labels in (("training", train), ("test", test)):
        foreign = np.setdiff1d(labels, known) if labels is not None else known[:0]
        if len(foreign):
            remedy = "occurs in no training example" if names is None else f"is none of the {len(names)} classes"
            raise InputError(f"{where}: the {part} label '{foreign[0]}' {remedy}; correct or remove it")
    classes = tuple(str(label) for label in (known.tolist() if names is None else names))
    test_index = None if test is None else torch.from_numpy(np.searchsorted(known, test))
    return torch.from_numpy(np.searchsorted(known, train)), test_index, classes


def with_test_part(
    name: str,
    images: Tensor,
    labels: Tensor,
    test_images: Tensor | None,
    test_labels: Tensor | None,
    classes: Sequence[str],
) -> ImageData:
    """Make a data set, giving up a stratified fifth where it has no test part of its own.

    Which examples are given up depends on the labels alone, so it is the same for all seeds.

    Args:
        name: The data set's name.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        test_images: The test part's, if there is one.
        test_labels: The test part's, if there is one.
        classes: The class names.

    Returns:
        The data set.

    Raises:
        InputError: If no class has the two examples that it takes to give one up.
    """
    if test_images is None or test_labels is None:
        given_up = _stratified_share(labels)
        if not given_up.any():
            raise InputError(f"{name}: no test part, and too few examples to give up {_TEST_SHARE:.0%} of each class")
        images, test_images = images[~given_up], images[given_up]
        labels, test_labels = labels[~given_up], labels[given_up]
    return ImageData(name, images, labels, test_images, test_labels, tuple(classes))


def _stratified_share(labels: Tensor) -> Tensor:
    """Mark a fifth of each class, at least one example, but never a class's only one."""
    generator = torch.Generator().manual_seed(0)
    given_up = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        count = max(1, round(_TEST_SHARE * len(members))) if len(members) > 1 else 0
        given_up[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return given_up
