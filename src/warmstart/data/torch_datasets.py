"""Any map-style torch `Dataset` of (image, label), read once into memory, so it should hold no random transform.

An image is a PIL image; a tensor (C, H, W) or (H, W); or an array (H, W, C) or (H, W): uint8, or floats in [0, 1]. A
label is an integer.
"""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from warmstart.data.decode import ImageStack, OnDecoded, Pixels, pixels
from warmstart.data.images import ImageData, to_uint8
from warmstart.data.train_and_test import index_labels, with_test_part
from warmstart.data.unreadable import in_one_line, reading, unreadable
from warmstart.errors import InputError


@in_one_line()
def from_dataset(
    train: Dataset[Any],
    test: Dataset[Any] | None = None,
    *,
    name: str | None = None,
    image_size: int | None = None,
    progress: OnDecoded | None = None,
) -> ImageData:
    """Read torch datasets into memory; their classes are called as in ``train.classes``, where there is one."""
    name = name or type(train).__name__.lower()
    parts = [(f"{name} training", train)] + ([(f"{name} test", test)] if test is not None else [])
    lengths = [_length(where, part) for where, part in parts]
    stack = ImageStack(sum(lengths), progress)
    labels: list[int] = []
    for (where, part), length in zip(parts, lengths, strict=True):
        for index in range(length):
            example = f"{where} example {index}"
            image, label = _pair(example, part, index)
            stack.put(len(labels), example, _to_pixels(example, image, image_size))
            labels.append(_to_index(example, label))
    images, cut = stack.images(), lengths[0]
    train_labels, test_labels = np.array(labels[:cut]), np.array(labels[cut:]) if test is not None else None
    classes = getattr(train, "classes", None)
    if not isinstance(classes, (list, tuple)):  # torchvision's have them, but it is no rule
        classes = None
    indices, test_indices, names = index_labels(name, train_labels, test_labels, classes)
    test_images = images[cut:] if test is not None else None
    return with_test_part(name, images[:cut], indices, test_images, test_indices, names)


def _length(where: str, part: Dataset[Any]) -> int:
    try:
        length = operator.length_hint(part, -1)
    except Exception:  # code of the user's, or none
        length = -1
    if length < 0 or isinstance(part, IterableDataset):
        raise InputError(f"{where}: len() and indexing must work; give a map-style Dataset")
    if length == 0:
        raise InputError(f"{where}: the dataset is empty")
    return length


def _pair(where: str, part: Dataset[Any], index: int) -> tuple[Any, Any]:
    try:
        example = part[index]
    except Exception as error:  # code of the user's
        named = RuntimeError(f"{type(error).__name__}: {error}")
        raise InputError(unreadable(where, named, "mend the dataset, or leave the example out")) from error
    if not isinstance(example, (tuple, list)) or len(example) != 2:
        raise InputError(f"{where} is a {type(example).__name__}; a dataset must give (image, label)")
    image, label = example
    return image, label


def _to_index(where: str, label: Any) -> int:
    try:
        return operator.index(label)
    except TypeError as error:
        raise InputError(f"{where} has the label {label!r}; labels must be integers") from error


def _in_numpy(image: Tensor) -> NDArray[Any]:
    """The tensor's values, in float32 if NumPy lacks its type, such as bfloat16."""
    image = image.detach().cpu()
    try:
        return image.numpy()
    except TypeError:
        return image.float().numpy()


def _to_pixels(where: str, image: Any, image_size: int | None) -> Pixels:
    with reading(where), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that is none to the pixels
        if isinstance(image, Image.Image):
            return pixels(image.copy(), where, image_size)
        values = _in_numpy(image) if isinstance(image, Tensor) else image
    if isinstance(image, Tensor):
        array: NDArray[Any] = values
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise InputError(f"{where} is a {type(image).__name__}; an image must be a PIL image, tensor or array")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        layout = "(C, H, W)" if isinstance(image, torch.Tensor) else "(H, W, C)"
        raise InputError(f"{where} has the shape {tuple(image.shape)}; it must be (H, W) or {layout}, C = 1 or 3")
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise InputError(f"{where} is {array.dtype}; an image must be uint8, or floats in [0, 1]")
    scaled = to_uint8(where, array, 1, "floats must be in [0, 1]: leave out Normalize")
    return pixels(Image.fromarray(scaled), where, image_size)
