"""The reader for what the user names: labelled images from wherever they are, as uint8."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from warmstart.data.arrays import read_digits, read_npz
from warmstart.data.cifar import find_cifar, read_cifar
from warmstart.data.features_and_noise import NAME as FEATURES_AND_NOISE
from warmstart.data.features_and_noise import read_features_and_noise
from warmstart.data.files import ARCHIVE_SUFFIXES, Files, FilesBeside, open_files
from warmstart.data.folders import list_folders
from warmstart.data.images import ImageData
from warmstart.data.label_files import SUFFIXES as LISTS
from warmstart.data.label_files import find_lists, list_rows
from warmstart.data.listing import Listing
from warmstart.data.settings import read_size
from warmstart.data.svhn import SVHN_FILES, read_svhn
from warmstart.data.tables import list_parquet, parquet_files, read_hub
from warmstart.data.torch_datasets import read_dataset
from warmstart.decoding.bounds import require_regular
from warmstart.decoding.decode import is_image, not_read
from warmstart.decoding.unreadable import in_one_line, reading
from warmstart.decoding.wanted import FITS, OnDecoded, Wanted
from warmstart.errors import InputError, one_of
from warmstart.image_size import ImageSize

_MADE = {"digits": read_digits, FEATURES_AND_NOISE: read_features_and_noise}
"""Data that need no file."""

_ACCEPTED = (
    "digits, hf:NAME, a folder of images by class, of parquet files or with a CSV of paths and labels, "
    f"or a file: .csv, .parquet, .npz, {', '.join(ARCHIVE_SUFFIXES)}; "
    "CIFAR-10 and CIFAR-100 (python version), SVHN (cropped digits) and Tiny-ImageNet as they are downloaded; "
    f"{FEATURES_AND_NOISE}, which is generated"
)


@in_one_line()
def load(
    data: str | Path | ImageData | tuple[Any, Any | None],
    *,
    image_size: ImageSize | str | None = None,
    fit: str = "stretch",
    image_column: str | None = None,
    label_column: str | None = None,
    order: str | None = None,
    skip_unreadable: bool = False,
    cache: str | Path | None = None,
    progress: OnDecoded | None = None,
) -> ImageData:
    """Read a labelled image data set.

    If some images are in colour, all become so; transparent parts show white. Images of 16 bits are brought to 8 by one
    rule for the whole data set: white is the largest value of the fewest bits (8, 10, 12, 14 or 16) that hold the
    largest value in it. Images are kept in memory, or on disk if they would take more than half of what is free.

    Args:
        data: ``digits``; ``features-and-noise``; ``hf:NAME`` or ``hf:NAME:CONFIG``; the path of a folder of images by
            class or of parquet files, of a parquet file, ``.npz`` or archive of images by class, of a CSV that names
            images and labels or a folder with one; that of CIFAR-10, CIFAR-100 (pickles), SVHN (``train_32x32.mat``) or
            Tiny-ImageNet as they are downloaded; data sets of torch or `datasets` (train, test or None); or what `load`
            returned before.
        image_size: Pixels a side, or (height, width), or a text such as ``48x64``; needed where images differ in size.
        fit: How images of other proportions come to that size: ``stretch``, ``crop`` (the middle) or ``pad`` (black).
        image_column: The images' column of a table; needed where more than one could be it.
        label_column: The labels' column, likewise.
        order: What says when an example arrived, for ``arrived``: a column (of times, numbers or texts), which is
            ``month`` for folders of months; or ``given``, the order of the rows or of the files' names.
        skip_unreadable: Leave out images that cannot be read; else they are an error that names them.
        cache: A folder to keep decoded images in, so that the next start need not decode them.
        progress: Called with the number of images decoded so far and in all.

    Returns:
        The data set, on the CPU; its ``notes`` say what was left out and other things to know.

    Raises:
        InputError: If the data is not there, cannot be read, or does not fit together.
    """
    one_of("fit", fit, FITS)
    wanted = Wanted(
        read_size(image_size),
        fit,
        image_column,
        label_column,
        order,
        skip_unreadable,
        None if cache is None else Path(cache),
        progress,
    )
    if isinstance(data, ImageData):
        return _resized(data, wanted) if wanted.size else data
    if isinstance(data, tuple):
        train, test = data
        return read_dataset(train, test, None, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, over damage: what matters of it is an error
        return _read(data, wanted)


def _read(data: str | Path, wanted: Wanted) -> ImageData:
    """Read what a text names."""
    if isinstance(data, str) and data.startswith("hf:"):
        return read_hub(data.removeprefix("hf:"), wanted)
    made = _MADE.get(data) if isinstance(data, str) else None
    path = Path(data) if made else require_path(str(data), tuple(_MADE), _ACCEPTED)
    if made is None and parquet_files(path):
        return list_parquet(path, wanted).read(wanted)
    if path.is_file() and path.name.lower().endswith(LISTS):
        return list_rows(path.stem, FilesBeside(path.parent), [path.name], wanted).read(wanted)
    if made is not None or (path.is_file() and not path.name.lower().endswith(ARCHIVE_SUFFIXES)):
        _refuse_columns(str(data), wanted)
    if made is not None:
        if wanted.cache is not None:
            raise InputError(f"cache is for images in files, which {data} are not; leave it out")
        return made(wanted)
    if path.suffix.lower() == ".npz":
        return read_npz(path, wanted)
    if path.name in SVHN_FILES and path.is_file():
        return read_svhn(path.parent, wanted)
    if path.is_file() and not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise InputError(f"{path}: not a kind of file that can be read; accepted are {_ACCEPTED}")
    with open_files(path) as files:
        return _read_files(path, files, wanted)


def _refuse_columns(where: str, wanted: Wanted, *, order: bool = True) -> None:
    if wanted.image_column is not None or wanted.label_column is not None:
        raise InputError(
            f"{where}: --image-column and --label-column are for tables (CSV, parquet, hub); leave them out"
        )
    if order and wanted.order_column is not None:
        raise InputError(
            f"{where}: there are no columns, so no '{wanted.order_column}' to order by; leave it out, or give random, "
            "given or classes"
        )


def _read_files(path: Path, files: Files, wanted: Wanted) -> ImageData:
    """Read the one data set that a folder or an archive holds."""
    found = _found_in(path, files, wanted)
    return found.read(wanted) if isinstance(found, Listing) else found()


def _found_in(path: Path, files: Files, wanted: Wanted) -> Listing | Callable[[], ImageData]:
    """The one data set that a folder or an archive holds, judged by the names of its files; arrays are to be called."""
    cifar = find_cifar(files.names)
    svhn = [name for name in SVHN_FILES if name in files.names and path.is_dir()]
    images = [name for name in files.names if is_image(name)]
    held = [layout.folder for layout, _ in cifar] + svhn[:1] + images[:1]
    if len(held) > 1:
        raise InputError(f"{path}: more than one data set in it ({', '.join(held)}); give the path of one of them")
    if not (cifar or svhn) and (lists := find_lists(files, wanted)):
        return list_rows(_name(path), files, lists, wanted)
    _refuse_columns(str(path), wanted, order=not images)
    if cifar:
        return partial(read_cifar, _name(path), files, *cifar[0], wanted)
    if svhn:
        return partial(read_svhn, path, wanted)
    if not images:
        found = not_read(files.names) or f"accepted are {_ACCEPTED}"
        raise InputError(f"{path}: no images in it{_readable_inside(files.names)}; {found}")
    return list_folders(_name(path), files, wanted)


@contextmanager
def open_listing(path: Path, wanted: Wanted) -> Iterator[Listing | None]:
    """The images that files or a table hold, before they are decoded; None for those of arrays, which `load` reads."""
    if parquet_files(path):
        yield list_parquet(path, wanted)
    elif path.is_file() and path.name.lower().endswith(LISTS):
        yield list_rows(path.stem, FilesBeside(path.parent), [path.name], wanted)
    elif path.is_dir() or path.name.lower().endswith(ARCHIVE_SUFFIXES):
        with open_files(path) as files:
            found = _found_in(path, files, wanted)
            yield found if isinstance(found, Listing) else None
    else:
        yield None


def _resized(data: ImageData, wanted: Wanted) -> ImageData:
    train, test = (wanted.all_fitted(images) for images in (data.train_images, data.test_images))
    file = data.file if train is data.train_images else None
    return replace(data, train_images=train, test_images=test, file=file)


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
    readable = [name for name in names if name.lower().endswith((".npz", *LISTS, *ARCHIVE_SUFFIXES))]
    return f", but {readable[0]}: give its path" if len(readable) == 1 else ""


def _name(path: Path) -> str:
    """The folder's name, or the archive's without its suffixes."""
    name = path.resolve().name
    suffix = next((end for end in ARCHIVE_SUFFIXES if name.lower().endswith(end)), "") if path.is_file() else ""
    return name[: len(name) - len(suffix)]
