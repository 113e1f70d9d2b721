"""Images in arrays: NumPy's `.npz`, and scikit-learn's digits.

Images of an .npz file are (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or other numbers in [0, 255], or floats in
[0, 1]; labels are integers of any values. Nothing in the file is unpickled.
"""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.data.images import ImageData, to_uint8
from warmstart.data.train_and_test import in_parts, index_labels
from warmstart.decoding.bounds import require_memory, require_regular, require_unpackable
from warmstart.decoding.unreadable import reading
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError

_KEYS = (("x_train", "y_train", "x_test", "y_test"), ("images", "labels", "test_images", "test_labels"))
_AGAIN = "save it again with numpy.savez"
_RANGES = "images must be uint8, or within [0, 1] or [0, 255]"
_CHUNK = 1024  # images converted at a time, so that no float copy of everything is made
_DIGITS_MAX = 16  # scikit-learn's digits are 4-bit counts, 0 to 16


def read_digits(wanted: Wanted) -> ImageData:
    """Read scikit-learn's 1797 handwritten digits, 8x8 and grey, without a test part."""
    rows = np.loadtxt(_digits_file(), delimiter=",")  # 64 pixels and the digit
    pixels = np.rint(rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / _DIGITS_MAX)).astype(np.uint8)
    grey = torch.from_numpy(pixels)
    images = wanted.all_fitted(grey)
    classes = [str(digit) for digit in range(10)]
    return in_parts("digits", images, torch.from_numpy(rows[:, -1]).long(), None, None, classes)


def _digits_file() -> Path:
    """The file in scikit-learn's folder; importing scikit-learn would import SciPy too, which takes a second."""
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations if package else None) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            return file
    raise InputError(
        "digits: scikit-learn, which holds them in datasets/data/digits.csv.gz, is not installed; "
        "pip install 'warmstart[lab]'"
    )


def read_npz(path: Path, wanted: Wanted) -> ImageData:
    """Read ``x_train, y_train[, x_test, y_test]`` or ``images, labels[, test_images, test_labels]`` from a file."""
    size = require_regular(path)
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not an .npz file, or a truncated one; save it again with numpy.savez")
    with reading(str(path), _AGAIN), path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        _check_size(path, file.zip, size)
        x, y, x_test, y_test = next((keys for keys in _KEYS if keys[0] in file.files), _KEYS[0])
        for key in (x, y):
            if key not in file.files:
                held = ", ".join(file.files)
                raise InputError(f"{path}: there is no {key}, only {held}; name the arrays {x} and {y}")
        present = [key for key in (x_test, y_test) if key in file.files]
        if len(present) == 1:
            raise InputError(f"{path}: a test part needs both {x_test} and {y_test}; add or remove one")
        arrays = {key: _read_key(path, file, key) for key in (x, y, *present)}

    labels, test_labels, classes = index_labels(
        str(path),
        _labels(path, y, arrays[y], len(arrays[x])),
        _labels(path, y_test, arrays[y_test], len(arrays[x_test])) if present else None,
    )
    unit = _in_unit_range(arrays[x])
    images = _images(path, x, arrays.pop(x), unit, wanted)
    test_images = _images(path, x_test, arrays.pop(x_test), unit, wanted) if present else None
    return in_parts(path.stem, images, labels, test_images, test_labels, classes)


def _check_size(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    """Raise InputError if the arrays are too large, or packed as NumPy never does: such unpack without a bound."""
    members = archive.infolist()
    if any(member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for member in members):
        raise InputError(f"{path}: not packed by NumPy; {_AGAIN}")
    unpacked = sum(member.file_size for member in members)
    require_unpackable(str(path), unpacked, size, len(members))
    require_memory(f"{path}: its arrays", unpacked, "save fewer images")


def _read_key(path: Path, file: Any, key: str) -> NDArray[Any]:
    with reading(f"{path}: {key}", _AGAIN):
        try:
            array: NDArray[Any] = np.atleast_1d(file[key])
        except ValueError as error:
            if "pickle" in str(error):
                raise InputError(f"{path}: {key} holds pickled objects, which are not read; save numbers") from error
            raise
    return array


def _labels(path: Path, key: str, labels: NDArray[Any], images: int) -> NDArray[Any]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(f"{path}: {key} is {labels.dtype} {labels.shape}; labels must be integers of shape (N,)")
    if len(labels) != images:
        raise InputError(f"{path}: {key} has {len(labels)} labels for {images} images; give one for each image")
    return labels


def _in_unit_range(images: NDArray[Any]) -> bool:
    """Whether white is 1, as usual in floats, rather than 255; asked of the training images, for both parts."""
    return images.dtype.kind == "b" or (images.dtype.kind == "f" and bool(images.max(initial=0) <= 1))


def _images(path: Path, key: str, images: NDArray[Any], unit: bool, wanted: Wanted) -> Tensor:
    shape = images.shape
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[3] in {1, 3}:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in {1, 3} or 0 in shape:
        raise InputError(
            f"{path}: {key} has the shape {shape}; images must be (N, H, W), (N, H, W, C) or (N, C, H, W), "
            "with 1 or 3 channels"
        )
    if images.dtype.kind not in "biuf":
        raise InputError(f"{path}: {key} is {images.dtype}; images must be numbers")
    pixels, top = torch.empty(images.shape, dtype=torch.uint8), 1 if unit else 255
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        pixels[part] = torch.from_numpy(to_uint8(f"{path}: {key}", images[part], top, _RANGES))
    return wanted.all_fitted(pixels)
