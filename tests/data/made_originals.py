"""CIFAR and SVHN in small, in the layout in which they are downloaded."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from made_images import Tree

CLASSES_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CLASSES_100 = [f"fine_{i}" for i in range(100)]


class Python2Pickler(pickle._Pickler):
    """Writes as Python 2 and its NumPy did: strings and bytes alike, 0 and 1 for a dtype's booleans."""

    def save_text(self, text: str | bytes) -> None:
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: save_text, bytes: save_text}

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.dtype):
            return NotImplemented
        _, (code, *_), state = value.__reduce__()
        return np.dtype, (code, 0, 1), state


def pickled(held: Any) -> bytes:
    """The content of a file of CIFAR."""
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(held)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def pixels(count: int, seed: int) -> np.ndarray:
    """Images as (N, 3, 32, 32)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def cifar10_tree(count: int = 10, prefix: str = "cifar-10-batches-py/") -> Tree:
    """Batch i holds ``count`` images of seed i (6 for the test batch) with the labels 0, 1, ..."""
    batches = {f"data_batch_{i}": i for i in range(1, 6)} | {"test_batch": 6}
    tree = {"batches.meta": pickled({"label_names": CLASSES_10, "num_vis": 3072}), "readme.html": b"<html>"}
    for name, seed in batches.items():
        data = pixels(count, seed).reshape(count, 3072)
        tree[name] = pickled(
            {"batch_label": name, "labels": [i % 10 for i in range(count)], "data": data, "filenames": ["x.png"]}
        )
    return {prefix + name: content for name, content in tree.items()}


def cifar100_tree(count: int = 20, prefix: str = "cifar-100-python/") -> Tree:
    """Fine labels 99, 98, ..., coarse ones all 0."""
    tree = {"meta": pickled({"fine_label_names": CLASSES_100, "coarse_label_names": ["all"]})}
    for name, seed in (("train", 1), ("test", 6)):
        data = np.asfortranarray(pixels(count, seed).reshape(count, 3072))
        fine = [99 - i % 100 for i in range(count)]
        tree[name] = pickled({"fine_labels": fine, "coarse_labels": [0] * count, "data": data})
    return {prefix + name: content for name, content in tree.items()}


def write_svhn(folder: Path, count: int = 20, compressed: bool = True) -> Path:
    """Labels 1, 2, ..., 10, 1, ...; the seeds 1 and 6."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in (("train", 1), ("test", 6)):
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        arrays = {"X": pixels(count, seed).transpose(2, 3, 1, 0), "y": labels}
        savemat(folder / f"{name}_32x32.mat", arrays, do_compression=compressed)
    return folder
