"""Reading the four data sets of the paper's tables, and checking that they are these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from warmstart.data.images import ImageData
from warmstart.data.load import load, require_path
from warmstart.data.paper_sets import PAPER_DATA, PaperData
from warmstart.decoding.unreadable import in_one_line, reading
from warmstart.decoding.wanted import OnDecoded
from warmstart.errors import InputError, nearest


@in_one_line()
def find_original(name: str, path: Path) -> Path:
    """The data set's folder or archive where ``path`` is a folder of several, as torchvision's root; else ``path``."""
    originals = _paper_data(name).originals
    found = require_path(str(path), (), f"{', '.join(originals)} or parquet; without --data it comes from the hub")
    with reading(str(found)):
        return next((found / original for original in originals if (found / original).exists()), found)


@in_one_line()
def load_paper_data(name: str, path: Path | None = None, *, progress: OnDecoded | None = None) -> ImageData:
    """Read one of the four from a path that `load` takes, or from the hub; a subset will do, see `shortfall`."""
    paper = _paper_data(name)
    if path is not None:
        data = load(find_original(name, path), progress=progress)
    else:
        try:
            data = load(paper.hub, image_column=paper.image_column, label_column=paper.label_column, progress=progress)
        except InputError as error:
            raise InputError(f"{error}; or give {paper.originals[-1]} with --data") from error
    _check(name, paper, data, str(path or paper.hub))
    return replace(data, name=name)


def shortfall(name: str, data: ImageData) -> str | None:
    """What a subset lacks, such as ``10 of 200 classes, 2000 of 100000 training images``; None for a whole data set."""
    paper = _paper_data(name)
    counts = (
        (data.num_classes, paper.num_classes, "classes"),
        (len(data.train_labels), paper.train_examples, "training images"),
        (len(data.test_labels), paper.test_examples, "test images"),
    )
    return ", ".join(f"{held} of {whole} {what}" for held, whole, what in counts if held != whole) or None


def _paper_data(name: str) -> PaperData:
    if name not in PAPER_DATA:
        raise InputError(f"'{name}' is not a data set of the paper's tables{nearest(name, PAPER_DATA)}")
    return PAPER_DATA[name]


def _check(name: str, paper: PaperData, data: ImageData, where: str) -> None:
    if name == "svhn" and not all(label.isdecimal() for label in data.classes):
        raise InputError(
            f"{where} holds classes such as '{data.classes[0]}', but svhn has digits; give svhn's own data"
        )
    if (data.image_size, data.channels) != (paper.image_size, 3):
        found, wanted = data.train_images.shape[-2:], paper.image_size
        colour = "colour" if data.channels == 3 else "grey"
        raise InputError(
            f"{where} holds {colour} images of {found[0]}x{found[1]} pixels, but {name}'s are colour images of "
            f"{wanted}x{wanted}; give {name}'s own data"
        )
    fewer = data.num_classes < paper.num_classes and name != "tiny-imagenet"  # of which subsets are in use
    if data.num_classes > paper.num_classes or fewer:
        raise InputError(
            f"{where} holds {data.num_classes} classes, but {name} has {paper.num_classes}; give {name}'s own data"
        )
    for count, whole, part in (
        (len(data.train_labels), paper.train_examples, "training"),
        (len(data.test_labels), paper.test_examples, "test"),
    ):
        if count > whole:
            raise InputError(f"{where} holds {count} {part} images, but {name} has {whole}; give {name}'s own data")
