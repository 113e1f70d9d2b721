"""SVHN's cropped digits as they are downloaded: `train_32x32.mat` and `test_32x32.mat`.

Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011; http://ufldl.stanford.edu/housenumbers
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.data.images import ImageData
from warmstart.data.train_and_test import in_parts, index_labels
from warmstart.decoding.bounds import MAX_FILE_BYTES, read_file, require_file_bytes
from warmstart.decoding.unreadable import reading
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError

SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")

_AGAIN = "download it again"
_DIGITS = [str(digit) for digit in range(10)]


def read_svhn(folder: Path, wanted: Wanted) -> ImageData:
    """Read `train_32x32.mat` and `test_32x32.mat` of a folder, classes 0 to 9; `extra_32x32.mat` is left out."""
    for name in SVHN_FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file, and SVHN needs {' and '.join(SVHN_FILES)}; {_AGAIN}")
    (images, train), (test_images, test) = (_read_part(folder / name, wanted) for name in SVHN_FILES)
    labels, test_labels, classes = index_labels(str(folder), train, test, _DIGITS)
    return in_parts(folder.resolve().name, images, labels, test_images, test_labels, classes)


def _read_part(path: Path, wanted: Wanted) -> tuple[Tensor, NDArray[np.int64]]:
    arrays = _load(path)
    for key in ("X", "y"):
        if not isinstance(arrays.get(key), np.ndarray):
            raise InputError(f"{path}: there is no array {key}; X must hold the images and y the labels; {_AGAIN}")
    pixels, labels = arrays["X"], arrays["y"].reshape(-1)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise InputError(f"{path}: X is {pixels.dtype} {pixels.shape}, not uint8 (32, 32, 3, N); {_AGAIN}")
    if labels.dtype.kind not in "iu" or len(labels) != pixels.shape[3]:
        found = f"{labels.dtype} {arrays['y'].shape}"
        raise InputError(f"{path}: y is {found}, not one integer for each of the {pixels.shape[3]} images; {_AGAIN}")
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
    labels = np.where(labels == 10, 0, labels).astype(np.int64)  # MATLAB counts from 1, so the digit 0 is class 10
    return wanted.all_fitted(images), labels


def _load(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    content = read_file(path)
    if content[124:128] in {b"\x00\x02IM", b"\x02\x00MI"}:
        raise InputError(
            f"{path}: in MATLAB's format 7.3 (HDF5), which is not read; download the original, or save it with '-v7'"
        )
    with reading(str(path), f"it is truncated or damaged; {_AGAIN}"), warnings.catch_warnings():
        warnings.simplefilter("error")  # where SciPy warns, the file is damaged
        unpacked: Any = io.BytesIO(_unpack(path, content))  # which scipy-stubs does not expect
        arrays: dict[str, Any] = loadmat(unpacked, variable_names=("X", "y"))
    return arrays


# In MATLAB's format 5: the type of a packed variable; the classes of arrays of numbers; the types of their values.
_PACKED, _COMPLEX = 15, 0x800
_CLASSES, _TYPES = range(6, 16), {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}


def _unpack(path: Path, content: bytes) -> bytes:
    """Unpack a file's variables and keep the arrays of numbers: SciPy knows no bounds, and crashes over odd types."""
    if content[124:128] not in {b"\x00\x01IM", b"\x01\x00MI"}:
        raise ValueError("not in MATLAB's format 5")
    words = "<II" if content[126:128] == b"IM" else ">II"
    parts, size, place = [memoryview(content)[:128]], 0, 128
    while place < len(content):
        kind, length = struct.unpack_from(words, content, place)
        variable = memoryview(content)[place : place + 8 + length]
        if len(variable) < 8 + length:
            raise ValueError("unexpected end of data")
        place += len(variable)
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            variable = memoryview(unpacker.decompress(variable[8:], MAX_FILE_BYTES))
            if not unpacker.eof:
                raise ValueError(f"a variable that ends too early, or of more than {MAX_FILE_BYTES} bytes")
        size += len(variable)
        require_file_bytes(str(path), size)
        if _holds_numbers(words, variable):
            parts.append(variable)
    return b"".join(parts)


def _holds_numbers(words: str, variable: memoryview) -> bool:
    """Whether a variable (a tag, then flags, extent, name and values, each with a tag of its own) is real numbers."""
    flags, place = struct.unpack_from(words, variable, 16)[0], 8
    for _ in range(3):
        kind, length = struct.unpack_from(words, variable, place)
        place += 8 if kind >> 16 else 8 + (length + 7) // 8 * 8  # up to four bytes stand within the tag
    kind, _ = struct.unpack_from(words, variable, place)
    return flags & 0xFF in _CLASSES and not flags & _COMPLEX and (kind & 0xFFFF) in _TYPES
