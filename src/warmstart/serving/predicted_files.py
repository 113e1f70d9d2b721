"""From folders of image files to predictions, batch by batch: what lies in memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from torch import Tensor

from warmstart.data.files import walk
from warmstart.data.load import require_path
from warmstart.decoding.decode import is_image, not_read
from warmstart.errors import InputError
from warmstart.serving.inputs import decode_files
from warmstart.serving.predictions import Predictions
from warmstart.serving.served import Served


@dataclass(frozen=True)
class PredictedFiles:
    """What a network says of some files."""

    paths: list[Path]
    predictions: Predictions | None
    """Of those that can be read, in their order; None if none can be."""
    unreadable: dict[int, str]
    """Place in ``paths`` -> why not."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Check that each path is a file or a folder with images; InputError about the first that is not."""
    found = [require_path(str(path), (), "image files, and folders of them") for path in paths]
    for path in found:
        if path.is_dir() and next(image_files([path]), None) is None:
            names = (name for _, _, names in walk(path) for name in names)
            raise InputError(f"{path}: no images in it; {not_read(names) or 'name another folder'}")
    return found


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that are named, whatever they are called, and the image files in folders and folders below them."""
    for path in paths:
        if not path.is_dir():
            yield path
        else:
            yield from (folder / name for folder, _, names in walk(path) for name in names if is_image(name))


def predict_files(served: Served, files: Iterable[Path], batch_size: int | None = None) -> Iterator[PredictedFiles]:
    """Say what is in each of any number of files.

    Yields:
        Batch by batch; the next one is decoded meanwhile.
    """
    for paths, pixels, unreadable in _decoded(served, iter(files), batch_size or served.batch_size):
        predictions = served.predict_pixels(pixels, batch_size) if len(pixels) else None
        yield PredictedFiles(paths, predictions, unreadable)


def _decoded(served: Served, files: Iterator[Path], size: int) -> Iterator[tuple[list[Path], Tensor, dict[int, str]]]:
    with ThreadPoolExecutor(1) as pool:

        def begin() -> tuple[list[Path], Future[tuple[Tensor, dict[int, str]]]]:
            paths = list(islice(files, size))
            return paths, pool.submit(decode_files, paths, served.card)

        paths, decoded = begin()
        while paths:
            following = begin()
            yield paths, *decoded.result()
            paths, decoded = following
