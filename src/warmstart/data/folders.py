"""Images by class: one folder a class, with or without parts, and Tiny-ImageNet as it is downloaded.

Class folders are at the top, or inside a training and a test part (``train`` and ``test`` or ``val``); a single folder
around everything is skipped. Folders around class folders that are all months or days (``2026-06``, ``202606``,
``2026-06-30``) say when the images in them arrived. Classes are in the order of their names, or in that of
``wnids.txt`` where it exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import PurePosixPath

import torch

from warmstart.data.columns import months
from warmstart.data.files import Files
from warmstart.data.listing import Listing
from warmstart.data.train_and_test import order_parts
from warmstart.decoding.decode import Encoded, is_image, not_read
from warmstart.decoding.wanted import GIVEN, Wanted
from warmstart.errors import InputError
from warmstart.wording import counted

_WNIDS = "wnids.txt"
_ANNOTATIONS = "val_annotations.txt"

_ORDERED_BY = ("month", "day", "date")
"""What the order by folders may be called."""

Labelled = dict[str, str]
"""The name of an image -> its class."""


@dataclass
class _Folder:
    """A folder of the tree and what is below it."""

    path: PurePosixPath
    folders: dict[str, _Folder] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def names(self) -> Iterator[str]:
        """The names of all files at any depth."""
        yield from (str(self.path / name) for name in self.files)
        for folder in self.folders.values():
            yield from folder.names()

    def images(self) -> Iterator[str]:
        """The names of all images at any depth."""
        return filter(is_image, self.names())


def list_folders(name: str, files: Files, wanted: Wanted) -> Listing:
    """List images whose folder is their class."""
    root = _step_into(_tree(files))
    train_name, test_names = order_parts(root.folders)
    if train_name is None and root.folders and len(test_names) == len(root.folders):
        raise InputError(f"{files.where}: there is a part '{test_names[0]}' but no part 'train'; add it")
    part = root if train_name is None else root.folders[train_name]
    train, arrived = _by_folder(files, part, wanted)
    if arrived is None and wanted.order == GIVEN:
        arrived = [_in_natural_order(image) for image in train]
    elif wanted.order_column not in ((None,) if arrived is None else (None, *_ORDERED_BY)):
        remedy = f"order by {_ORDERED_BY[0]}" if arrived else "put the class folders into folders such as 2026-06"
        raise InputError(f"{files.where}: folders have no column '{wanted.order_column}'; {remedy}")
    if not train:
        raise InputError(
            f"{files.where}: no images in class folders; arrange them as CLASS/image.png or train/CLASS/image.png"
        )
    classes = _class_order(files, root, train)
    test = _test_part(files, root, test_names, wanted) if train_name is not None else {}
    classes += sorted(set(test.values()) - set(classes))
    number = {label: place for place, label in enumerate(classes)}
    labels, test_labels = (
        torch.tensor([number[x] for x in part.values()], dtype=torch.int64) for part in (train, test)
    )
    notes = [not_read(sorted(chain(part.names(), *(root.folders[x].names() for x in test_names if train_name))))]
    loose = sorted(filter(is_image, part.files))
    if loose:
        notes.append(f"{counted(len(loose), 'image')} in no class folder, such as {loose[0]}: not used")
    return Listing(
        name,
        files.where,
        labels,
        test_labels if test else None,
        classes,
        partial(encoded_files, files, [*train, *test]),
        lambda: files.sources([*train, *test]),
        arrived,
        [f"{files.where}: {note}" for note in notes if note],
        [*train, *test],
        _layout(part),
    )


def _layout(part: _Folder) -> str:
    """Where the class folders are; that there are months says nothing else of them."""
    around = [name for name in part.path.parts if not months([name])]
    return f"class folders in {'/'.join(around)}" if around else "class folders"


def encoded_files(files: Files, names: Sequence[str]) -> Iterator[Encoded]:
    """Read images by their names, in the order in which they are fastest to read."""
    index = {name: place for place, name in enumerate(names)}
    known = {name: index[name] for name in files.names if name in index}
    for name, place in (known | index).items():
        yield place, name, partial(files.read, name)


def _in_natural_order(name: str) -> str:
    """A key that sorts files by their names, whatever folders they are in, and numbers in names by their size."""
    path = PurePosixPath(name)
    return re.sub(r"\d+", lambda number: number[0].zfill(20), f"{path.name} {path.parent}")


def _tree(files: Files) -> _Folder:
    root = _Folder(PurePosixPath())
    seen = {root.path: root}

    def folder(path: PurePosixPath) -> _Folder:
        if path not in seen:
            seen[path] = folder(path.parent).folders[path.name] = _Folder(path)
        return seen[path]

    for name in files.folders:
        folder(PurePosixPath(name))
    for name in files.names:
        path = PurePosixPath(name)
        folder(path.parent).files.add(path.name)
    return root


def _step_into(root: _Folder) -> _Folder:
    """Skip folders that only wrap the data set; most archives have one."""
    while len(root.folders) == 1 and _WNIDS not in root.files:
        ((name, inner),) = root.folders.items()
        if not inner.folders or order_parts([name]) != (None, []):
            break
        root = inner
    return root


def _by_folder(files: Files, part: _Folder, wanted: Wanted) -> tuple[Labelled, list[str] | None]:
    """Label each image with the folder that it is in, in the order of the names, and say when it arrived."""
    found = months(part.folders)
    if not found:
        return _by_class(files, part, wanted), None
    if (other := next((name for name in part.folders if name not in found), None)) is not None:
        raise InputError(
            f"{files.where}: the folder {min(found)} is a month, but {other} beside it is none; put all class folders "
            f"into folders of months, as {min(found)}/CLASS/image.png, or rename it"
        )
    labelled: Labelled = {}
    arrived: list[str] = []
    for name in sorted(found, key=found.__getitem__):
        month = part.folders[name]
        if not month.folders:
            raise InputError(
                f"{files.where}: the folder {month.path} is a month or day without class folders; arrange them as "
                f"{month.path}/CLASS/image.png"
            )
        labelled |= (inside := _by_class(files, month, wanted))
        arrived += [found[name]] * len(inside)
    return labelled, arrived


def _by_class(files: Files, part: _Folder, wanted: Wanted) -> Labelled:
    labelled: Labelled = {}
    for label, folder in sorted(part.folders.items()):
        images = sorted(folder.images())
        if not images and not wanted.skip_unreadable:
            unread = not_read(sorted(folder.names())) or "add some or remove it"
            raise InputError(f"{files.where}: the class folder {folder.path} holds no image; {unread}")
        labelled |= dict.fromkeys(images, label)
    return labelled


def _class_order(files: Files, root: _Folder, train: Labelled) -> list[str]:
    found = sorted(set(train.values()))
    if _WNIDS not in root.files:
        return found
    listed = _lines(files, root, _WNIDS)
    differing = sorted(set(listed) ^ set(found))
    if differing:
        label = differing[0]
        missing_from = "the training part" if label in listed else _WNIDS
        raise InputError(f"{files.where}: the class '{label}' is not in {missing_from}; download it again")
    return list(dict.fromkeys(listed))


def _test_part(files: Files, root: _Folder, candidates: list[str], wanted: Wanted) -> Labelled:
    """The labelled images of the first part that has labels: a list of them, or class folders."""
    for name in candidates:
        if _ANNOTATIONS in root.folders[name].files:
            return _annotated(files, root.folders[name])
    for name in candidates:
        if root.folders[name].folders:
            return _by_folder(files, root.folders[name], wanted)[0]
    return {}


def _annotated(files: Files, part: _Folder) -> Labelled:
    """Tiny-ImageNet's validation images: each line has a file name, a class and a box."""
    paths = {PurePosixPath(image).name: image for image in part.images()}
    labelled = {}
    for number, line in enumerate(_lines(files, part, _ANNOTATIONS), start=1):
        image, label = (*line.split("\t"), "")[:2]
        if not label or image not in paths:
            reason = f"{image} is not there" if label else "no class"
            raise InputError(f"{files.where}: {part.path / _ANNOTATIONS} line {number}: {reason}; download it again")
        labelled[paths[image]] = label
    return labelled


def _lines(files: Files, folder: _Folder, name: str) -> list[str]:
    text = files.read(str(folder.path / name)).decode("utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
