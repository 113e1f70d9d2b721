"""The reader for what the user names: labelled images from wherever they are, in memory as uint8."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from warmstart.data.arrays import read_digits, read_npz
from warmstart.data.bounds import require_regular
from warmstart.data.cifar import find_cifar, read_cifar
from warmstart.data.decode import OnDecoded
from warmstart.data.features_and_noise import NAME as FEATURES_AND_NOISE
from warmstart.data.features_and_noise import read_features_and_noise
from warmstart.data.files import ARCHIVE_SUFFIXES, Files, open_files
from warmstart.data.folders import is_image, read_folders
from warmstart.data.images import ImageData, resize_images
from warmstart.data.svhn import SVHN_FILES, read_svhn
from warmstart.data.tables import parquet_files, read_hub, read_parquet
from warmstart.data.torch_datasets import from_dataset
from warmstart.data.unreadable import in_one_line, reading
from warmstart.errors import InputError, at_least_one

_MADE = {"digits": read_digits, FEATURES_AND_NOISE: read_features_and_noise}
"""Data that need no file."""

_ACCEPTED = (
    "digits, hf:NAME, a folder of images by class or of parquet files, "
    f"or a file: .parquet, .npz, {', '.join(ARCHIVE_SUFFIXES)}; "
    "CIFAR-10 and CIFAR-100 (python version), SVHN (cropped digits) and Tiny-ImageNet as they are downloaded; "
    f"{FEATURES_AND_NOISE}, which is generated"
)


@in_one_line()
def load(
    data: str | Path | ImageData | tuple[Dataset[Any], Dataset[Any] | None],
    *,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    progress: OnDecoded | None = None,
) -> ImageData:
    """Read a labelled image data set into memory.

    Images are stretched to ``image_size`` (bilinear, antialiased); if some are in colour, all become so; transparent
    parts show white; 16 bits keep the upper 8. Where there is no test part, a stratified fifth is held out, the same
    for all seeds.

    Args:
        data: ``digits``; ``features-and-noise``; ``hf:NAME`` or ``hf:NAME:CONFIG``; the path of a folder of images by
            class or of parquet files, of a parquet file, ``.npz`` or archive of images by class; that of CIFAR-10,
            CIFAR-100 (pickles), SVHN (``train_32x32.mat``) or Tiny-ImageNet as they are downloaded; torch datasets
            (train, test or None); or what `load` returned before.
        image_size: Height and width in pixels; needed where the images differ in size or are not square.
        image_column: The images' column of parquet and hub data; needed where more than one could be it.
        label_column: The labels' column, likewise.
        progress: Called with the number of images decoded so far and in all.

    Returns:
        The data set, on the CPU.

    Raises:
        InputError: If the data is not there, cannot be read, or does not fit together.
    """
    if image_size is not None:
        at_least_one("--image-size", image_size)
    if isinstance(data, ImageData):
        return _resized(data, image_size) if image_size else data
    if isinstance(data, tuple):
        train, test = data
        return from_dataset(train, test, image_size=image_size, progress=progress)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, over damage: what matters of it is an error
        return _read(data, image_size, image_column, label_column, progress)


def _read(
    data: str | Path,
    image_size: int | None,
    image_column: str | None,
    label_column: str | None,
    progress: OnDecoded | None,
) -> ImageData:
    """Read what a text names."""
    if isinstance(data, str) and data.startswith("hf:"):
        return read_hub(data.removeprefix("hf:"), image_size, image_column, label_column, progress)
    made = _MADE.get(data) if isinstance(data, str) else None
    path = Path(data) if made else require_path(str(data), tuple(_MADE), _ACCEPTED)
    if made is None and parquet_files(path):
        return read_parquet(path, image_size, image_column, label_column, progress)
    if image_column is not None or label_column is not None:
        raise InputError(f"{data}: --image-column and --label-column are for parquet and hub data; leave them out")
    if made is not None:
        return made(image_size)
    if path.suffix.lower() == ".npz":
        return read_npz(path, image_size)
    if path.name in SVHN_FILES and path.is_file():
        return read_svhn(path.parent, image_size)
    if path.is_file() and not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise InputError(f"{path}: not a kind of file that can be read; accepted are {_ACCEPTED}")
    with open_files(path) as files:
        return _read_files(path, files, image_size, progress)


def _read_files(path: Path, files: Files, image_size: int | None, progress: OnDecoded | None) -> ImageData:
    """Read the one data set that a folder or an archive holds, judged by the names of its files."""
    cifar = find_cifar(files.names)
    svhn = [name for name in SVHN_FILES if name in files.names and path.is_dir()]
    images = [name for name in files.names if is_image(name)]
    held = [layout.folder for layout, _ in cifar] + svhn[:1] + images[:1]
    if len(held) > 1:
        raise InputError(f"{path}: more than one data set in it ({', '.join(held)}); give the path of one of them")
    if cifar:
        return read_cifar(_name(path), files, *cifar[0], image_size)
    if svhn:
        return read_svhn(path, image_size)
    if not images:
        raise InputError(f"{path}: no images in it{_readable_inside(files.names)}; accepted are {_ACCEPTED}")
    return read_folders(_name(path), files, image_size, progress)


def _resized(data: ImageData, size: int) -> ImageData:
    train, test = (resize_images(images, size) for images in (data.train_images, data.test_images))
    return ImageData(data.name, train, data.train_labels, test, data.test_labels, data.classes)


def require_path(given: str, made: tuple[str, ...], accepted: str) -> Path:
    """The path of a folder or regular file; InputError if it is none, which suggests one of ``made`` or a neighbour."""
    with reading(given, f"accepted are {accepted}"):  # a name may be too long, and ~USER unknown
        path = Path(given).expanduser()
        if path.exists():
            if not path.is_dir():
                require_regular(path)
            return path
        beside = (
            [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
            if path.parent.is_dir()
            else []
        )
    known = [*made, *beside] if path.parent == Path() else beside
    close = get_close_matches(path.name, known, n=1)
    if close:
        close_path = close[0] if close[0] in made else path.parent / close[0]
        raise InputError(f"{given}: no such file or folder; did you mean '{close_path}'?")
    on_hub = made and given.count("/") == 1 and given[0] not in "./~"
    hub = f"; on the hub it would be hf:{given}" if on_hub else ""
    raise InputError(f"{given}: no such file or folder{hub}; accepted are {accepted}")


def _readable_inside(names: list[str]) -> str:
    """A hint for a folder that holds no images but one file that can be read if its path is given."""
    readable = [name for name in names if name.lower().endswith((".npz", *ARCHIVE_SUFFIXES))]
    return f", but {readable[0]}: give its path" if len(readable) == 1 else ""


def _name(path: Path) -> str:
    """The folder's name, or the archive's without its suffixes."""
    name = path.resolve().name
    suffix = next((end for end in ARCHIVE_SUFFIXES if name.lower().endswith(end)), "") if path.is_file() else ""
    return name[: len(name) - len(suffix)]
