"""CIFAR-10 and CIFAR-100 as they are downloaded: Python pickles in a folder or a .tar.gz.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.data.files import Files
from warmstart.data.images import ImageData
from warmstart.data.pickles import read_pickle
from warmstart.data.train_and_test import in_parts, index_labels
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError

_SHAPE = (3, 32, 32)
_AGAIN = "download the data set again"


@dataclass(frozen=True)
class CifarLayout:
    """The files of one of the two data sets, and the keys inside them."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    label_key: str
    names_key: str
    min_files: int
    """A folder with this many of the names is the data set; CIFAR-100's names are everyday words, so one is too few."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read."""
        return (*self.train, self.test, self.meta)


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
LAYOUTS = (
    CifarLayout("cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", "labels", "label_names", 1),
    CifarLayout("cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names", 2),
)


def find_cifar(names: Sequence[str]) -> list[tuple[CifarLayout, PurePosixPath]]:
    """Find data sets among file names, at the top or one folder below: the layout and the folder of each."""
    folders: dict[PurePosixPath, set[str]] = {}
    for path in map(PurePosixPath, names):
        if len(path.parts) <= 2:
            folders.setdefault(path.parent, set()).add(path.name)
    return [
        (layout, folder)
        for folder, held in folders.items()
        for layout in LAYOUTS
        if len(held.intersection(layout.files)) >= layout.min_files
    ]


def read_cifar(name: str, files: Files, layout: CifarLayout, folder: PurePosixPath, wanted: Wanted) -> ImageData:
    """Read one of the two data sets, in the order of its files; CIFAR-100 with its fine labels."""
    inside = {str(folder / file): file for file in layout.files}
    missing = [file for path, file in inside.items() if path not in files.names]
    if missing:
        raise InputError(f"{files.where}: {missing[0]} is missing beside the other files of {layout.folder}; {_AGAIN}")
    # In the archive's order: going back in a .tar.gz means unpacking it from its start.
    held = {
        inside[path]: read_pickle(f"{files.where}: {path}", files.read(path)) for path in files.names if path in inside
    }
    where = f"{files.where}: {folder}" if folder.name else files.where
    names = held[layout.meta].get(layout.names_key)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: {layout.meta} holds no list of names '{layout.names_key}'; {_AGAIN}")
    parts = {file: _batch(f"{where}: {file}", held[file], layout.label_key) for file in (*layout.train, layout.test)}
    train_labels = np.concatenate([parts[file][1] for file in layout.train])
    labels, test_labels, classes = index_labels(where, train_labels, parts[layout.test][1], names)
    images, test_images = (
        _images([parts[file][0] for file in group], wanted) for group in (layout.train, (layout.test,))
    )
    return in_parts(name, images, labels, test_images, test_labels, classes)


def _batch(where: str, held: dict[str, Any], label_key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The pixels and labels of one file."""
    for key in ("data", label_key):
        if key not in held:
            raise InputError(f"{where} holds no '{key}', but {', '.join(held) or 'nothing'}; {_AGAIN}")
    pixels, labels = held["data"], _integers(held[label_key])
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else f"a {type(pixels).__name__}"
        raise InputError(f"{where}: 'data' is {found}, not uint8 (N, 3072); {_AGAIN}")
    if labels is None or labels.shape != pixels.shape[:1]:
        raise InputError(f"{where}: '{label_key}' must be one integer for each of the {len(pixels)} images; {_AGAIN}")
    return pixels, labels.astype(np.int64)


def _integers(labels: Any) -> NDArray[Any] | None:
    """Labels as an array: original files hold a list, rewritten ones an array; None for anything else."""
    if isinstance(labels, list) and all(isinstance(label, int) for label in labels):
        labels = np.array(labels, dtype=None if labels else np.int64)
    return labels if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" else None


def _images(batches: list[NDArray[np.uint8]], wanted: Wanted) -> Tensor:
    images = torch.from_numpy(np.concatenate(batches).reshape(-1, *_SHAPE))
    return wanted.all_fitted(images)
