"""Streams: labelled images from wherever they are, in memory as uint8, arriving in stages.

`load` finds the reader for what the user names; `split_stages` says what arrives when.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from warmstart.errors import InputError
from warmstart.streams.arrays import read_digits, read_npz
from warmstart.streams.decode import Progress
from warmstart.streams.files import ARCHIVE_SUFFIXES, open_files
from warmstart.streams.folders import is_image, read_folders
from warmstart.streams.images import ImageData, resize_images
from warmstart.streams.stages import split_stages
from warmstart.streams.tables import parquet_files, read_hub, read_parquet
from warmstart.streams.torch_datasets import from_dataset

__all__ = ["ImageData", "Progress", "from_dataset", "load", "split_stages"]

_ACCEPTED = (
    "digits, hf:NAME, a folder of images by class or of parquet files, "
    f"or a file: .parquet, .npz, {', '.join(ARCHIVE_SUFFIXES)}"
)


def load(
    data: str | Path | ImageData | tuple[Dataset[Any], Dataset[Any] | None],
    *,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Read a labelled image data set into memory.

    Images are stretched to ``image_size`` (bilinear, antialiased), grey ones become colour where others are,
    transparent parts show white, 16 bits keep the upper 8. A data set without a test part gives up a
    stratified fifth, the same for all seeds.

    Args:
        data: ``digits``; ``hf:NAME`` or ``hf:NAME:CONFIG``; the path of a folder of images by class or of
            parquet files, of a parquet file, ``.npz`` or archive of images by class (Tiny-ImageNet as it is
            downloaded, too); torch datasets (train, test or None); or what `load` returned before.
        image_size: Height and width in pixels; needed where the images differ in size or are not square.
        image_column: The column of the images, in parquet and hub data where it is not plain.
        label_column: The column of the labels, likewise.
        progress: Called with the number of images decoded so far and in all.

    Returns:
        The data set, on the CPU.

    Raises:
        InputError: If the data is not there, cannot be read, or does not fit together.
    """
    if image_size is not None and image_size < 1:
        raise InputError(f"--image-size is {image_size}; it must be at least 1")
    if isinstance(data, ImageData):
        return _resized(data, image_size) if image_size else data
    if isinstance(data, tuple):
        train, test = data
        return from_dataset(train, test, image_size=image_size, progress=progress)
    if isinstance(data, str) and data.startswith("hf:"):
        return read_hub(data.removeprefix("hf:"), image_size, image_column, label_column, progress)
    is_digits = isinstance(data, str) and data == "digits"
    path = Path(data).expanduser()
    if not is_digits:
        _check_exists(path, str(data))
        if parquet_files(path):
            return read_parquet(path, image_size, image_column, label_column, progress)
    if image_column is not None or label_column is not None:
        raise InputError(f"{data}: --image-column and --label-column are for parquet and hub data; leave them out")
    if is_digits:
        return read_digits(image_size)
    if path.suffix.lower() == ".npz":
        return read_npz(path, image_size)
    if path.is_file() and not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise InputError(f"{path}: not a kind of file that can be read; accepted are {_ACCEPTED}")
    with open_files(path) as files:
        if not any(is_image(name) for name in files.names):
            raise InputError(f"{path}: no images in it{_readable_inside(files.names)}; accepted are {_ACCEPTED}")
        return read_folders(_name(path), files, image_size, progress)


def _resized(data: ImageData, size: int) -> ImageData:
    train, test = (resize_images(images, size) for images in (data.train_images, data.test_images))
    return ImageData(data.name, train, data.train_labels, test, data.test_labels, data.classes)


def _check_exists(path: Path, given: str) -> None:
    if path.exists():
        return
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    known = ["digits", *beside] if path.parent == Path() else beside
    close = get_close_matches(path.name, known, n=1)
    if close:
        close_path = close[0] if close[0] == "digits" else path.parent / close[0]
        raise InputError(f"{given}: no such file or folder; did you mean '{close_path}'?")
    hub = f"; on the hub it would be hf:{given}" if given.count("/") == 1 and given[0] not in "./~" else ""
    raise InputError(f"{given}: no such file or folder{hub}; accepted are {_ACCEPTED}")


def _readable_inside(names: list[str]) -> str:
    """A hint where a folder holds not images, but one file that could be read by itself."""
    readable = [name for name in names if name.lower().endswith((".npz", *ARCHIVE_SUFFIXES))]
    return f", but {readable[0]}: give its path" if len(readable) == 1 else ""


def _name(path: Path) -> str:
    """The folder's name, or the archive's without its suffixes."""
    name = path.resolve().name
    suffix = next((end for end in ARCHIVE_SUFFIXES if name.lower().endswith(end)), "") if path.is_file() else ""
    return name[: len(name) - len(suffix)]
