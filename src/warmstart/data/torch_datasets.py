"""Any map-style data set of (image, label) or of mappings, as torch's and `datasets`' are, read once into memory.

It should hold no random transform. An image is a PIL image; a tensor (C, H, W) or (H, W); or an array (H, W, C) or
(H, W): uint8, or floats in [0, 1]. A label is an integer or a name.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from warmstart.data.columns import IMAGE_NAMES, LABEL_NAMES, arrival_keys, choose
from warmstart.data.images import ImageData, to_uint8
from warmstart.data.settings import read_size
from warmstart.data.train_and_test import in_parts, index_labels
from warmstart.decoding.bounds import MAX_TEXT
from warmstart.decoding.decode import ImageStack, Pixels, depth_of, pixels
from warmstart.decoding.unreadable import in_one_line, reading, unreadable
from warmstart.decoding.wanted import OnDecoded, Wanted
from warmstart.errors import InputError
from warmstart.image_size import ImageSize
from warmstart.wording import printable


@in_one_line()
def from_dataset(
    train: Any,
    test: Any | None = None,
    *,
    name: str | None = None,
    image_size: ImageSize | str | None = None,
    fit: str = "stretch",
    image_column: str | None = None,
    label_column: str | None = None,
    order: str | None = None,
    skip_unreadable: bool = False,
    progress: OnDecoded | None = None,
) -> ImageData:
    """Read data sets into memory; the arguments after ``name`` are those of `load`.

    Returns:
        The data set; its classes are called as in ``train.classes`` or ``train.features``, if there are any.
    """
    size = read_size(image_size)
    wanted = Wanted(size, fit, image_column, label_column, order, skip_unreadable, None, progress)
    return read_dataset(train, test, name, wanted)


def read_dataset(train: Any, test: Any | None, name: str | None, wanted: Wanted) -> ImageData:
    """Do what `from_dataset` does."""
    name = name or type(train).__name__.lower()
    parts = [(f"{name} training", train)] + ([(f"{name} test", test)] if test is not None else [])
    lengths = [_length(where, part) for where, part in parts]
    stack = ImageStack(sum(lengths), wanted.progress)
    labels, arrived, columns = _put_all(parts, lengths, stack, wanted)
    if stack.top and (bits := depth_of(stack.top)) < stack.bits:
        stack.begin_again(bits)
        _put_all(parts, lengths, stack, wanted)
    notes = stack.check(name, wanted.skip_unreadable)
    images, kept = stack.images(), [index not in stack.unreadable for index in range(stack.total)]
    cut, keys = sum(kept[: lengths[0]]), None
    if wanted.order_column is not None:
        keys = arrival_keys(name, wanted.order_column, list(compress(arrived, kept[: lengths[0]])))
    labels = list(compress(labels, kept))
    test_part = labels[cut:] if test is not None else None
    indices, test_indices, names = index_labels(
        name, np.array(labels[:cut]), None if test_part is None else np.array(test_part), _class_names(train, columns)
    )
    test_images = images[cut:] if test is not None else None
    data = in_parts(name, images[:cut], indices, test_images, test_indices, names, keys)
    return replace(data, notes=tuple(map(printable, notes)), bits=stack.bits)


@dataclass(frozen=True)
class _Columns:
    """The keys of rows that are mappings."""

    image: str
    label: str


def _put_all(
    parts: list[tuple[str, Any]], lengths: list[int], stack: ImageStack, wanted: Wanted
) -> tuple[list[int | str], list[Any], _Columns | None]:
    """Put all images onto the stack; returns the labels, when training examples arrived, and the columns."""
    labels: list[int | str] = []
    arrived: list[Any] = []
    columns: _Columns | None = None
    for (where, part), length in zip(parts, lengths, strict=True):
        for index in range(length):
            example = f"{where} example {index}"
            row = _row(example, part, index)
            if isinstance(row, Mapping):
                columns = columns or _find_columns(example, row, wanted)
                image, label = _taken(example, row, columns.image), _taken(example, row, columns.label)
            else:
                image, label = _pair(example, row, wanted)
            if wanted.order_column is not None and part is parts[0][1]:
                arrived.append(_taken(example, row, wanted.order_column))
            try:
                array, top = _to_pixels(example, image, wanted, stack.bits)
            except InputError as error:
                stack.leave_out(len(labels), example, error)
            else:
                stack.put(len(labels), example, array, top)
            labels.append(_label(example, label, labels[0] if labels else None))
    return labels, arrived, columns


def _length(where: str, part: Any) -> int:
    if isinstance(part, Mapping):
        held = ", ".join(f"'{key!s:.40}'" for key in part)
        raise InputError(f"{where} is a {type(part).__name__} of {held}; give one of its parts, such as data['train']")
    try:
        length = operator.length_hint(part, -1)
    except Exception:  # code of the user's, or none
        length = -1
    if length < 0 or isinstance(part, IterableDataset):
        raise InputError(f"{where}: len() and indexing must work; give a map-style Dataset")
    if length == 0:
        raise InputError(f"{where}: the dataset is empty")
    return length


def _row(where: str, part: Any, index: int) -> Any:
    try:
        return part[index]
    except Exception as error:  # code of the user's
        named = RuntimeError(f"{type(error).__name__}: {error}")
        raise InputError(unreadable(where, named, "mend the dataset, or leave the example out")) from error


def _pair(where: str, row: Any, wanted: Wanted) -> tuple[Any, Any]:
    if not isinstance(row, (tuple, list)) or len(row) != 2:
        raise InputError(f"{where} is a {type(row).__name__}; a dataset must give (image, label) or a mapping of them")
    if (named := wanted.image_column or wanted.label_column or wanted.order_column) is not None:
        raise InputError(f"{where} is a pair without columns, so there is no '{named}'; leave it out")
    image, label = row
    return image, label


def _find_columns(where: str, row: Mapping[Any, Any], wanted: Wanted) -> _Columns:
    images = [key for key, value in row.items() if isinstance(value, (Image.Image, np.ndarray)) or _is_map(value)]
    image = choose(where, "image", dict(row), images, IMAGE_NAMES, wanted.image_column)
    categories = [key for key, value in row.items() if key != image and _is_category(value)]
    categories = [key for key in categories if key != wanted.order_column or key == wanted.label_column]
    return _Columns(image, choose(where, "label", dict(row), categories, LABEL_NAMES, wanted.label_column))


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() >= 2


def _is_category(value: Any) -> bool:
    return isinstance(value, (str, int, np.integer)) or (isinstance(value, Tensor) and value.dim() == 0)


def _taken(where: str, row: Any, column: str) -> Any:
    if not isinstance(row, Mapping) or column not in row:
        raise InputError(f"{where} has no '{column}'; give the same columns in each")
    return row[column]


def _class_names(train: Any, columns: _Columns | None) -> Sequence[str] | None:
    """The names that torchvision's data sets have, and those of a `datasets` column; it is no rule that there are."""
    names = getattr(train, "classes", None)
    if columns is not None:
        names = getattr((getattr(train, "features", None) or {}).get(columns.label), "names", None)
    return names if isinstance(names, (list, tuple)) else None


def _label(where: str, label: Any, first: int | str | None) -> int | str:
    """A label as a whole number or a text, whichever the first one is."""
    found: int | str
    if isinstance(label, str):
        found = label
        fits = 0 < len(label) <= MAX_TEXT
    else:
        try:
            found, fits = operator.index(label), True
        except TypeError:
            found, fits = 0, False
    if not fits:
        raise InputError(f"{where} has the label {label!r:.60}; labels must be integers or names")
    if first is not None and isinstance(first, str) != isinstance(found, str):
        raise InputError(f"{where} has the label {label!r:.60}, others {first!r:.60}; make all integers or all names")
    return found


def _in_numpy(image: Tensor) -> NDArray[Any]:
    """The tensor's values, in float32 if NumPy lacks its type, such as bfloat16."""
    image = image.detach().cpu()
    try:
        return image.numpy()
    except TypeError:
        return image.float().numpy()


def _copied(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.format = image.format  # which a copy forgets, and which tells what 16 bits mean
    return copy


def _to_pixels(where: str, image: Any, wanted: Wanted, bits: int) -> tuple[Pixels, int]:
    with reading(where), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that is none to the pixels
        if isinstance(image, Image.Image):
            return pixels(_copied(image), where, wanted, bits)
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
    return pixels(Image.fromarray(scaled), where, wanted)
