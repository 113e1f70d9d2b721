"""Images by class: one folder a class, with or without parts, and Tiny-ImageNet as it is downloaded.

Class folders are at the top, or inside a training and a test part (``train`` and ``test`` or ``val``); a single folder
around everything is skipped. Classes are in the order of their names, or in that of ``wnids.txt`` where it exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import torch

from warmstart.data.decode import SUFFIXES, OnDecoded, decode_images
from warmstart.data.files import Files
from warmstart.data.images import ImageData
from warmstart.data.train_and_test import order_parts, with_test_part
from warmstart.errors import InputError

_WNIDS = "wnids.txt"
_ANNOTATIONS = "val_annotations.txt"

Labelled = dict[str, str]
"""The name of an image -> its class."""


@dataclass
class _Folder:
    """A folder of the tree and what is below it."""

    path: PurePosixPath
    folders: dict[str, _Folder] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def images(self) -> Iterator[str]:
        """The names of all images at any depth."""
        yield from (str(self.path / name) for name in self.files if is_image(name))
        for folder in self.folders.values():
            yield from folder.images()


def is_image(name: str) -> bool:
    """Whether a file's name has the suffix of an image format that is read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_folders(
    name: str, files: Files, image_size: int | None = None, progress: OnDecoded | None = None
) -> ImageData:
    """Read images whose folder is their class."""
    root = _step_into(_tree(files))
    train_name, test_names = order_parts(root.folders)
    if train_name is None and root.folders and len(test_names) == len(root.folders):
        raise InputError(f"{files.where}: there is a part '{test_names[0]}' but no part 'train'; add it")
    train = _by_folder(files, root if train_name is None else root.folders[train_name])
    if not train:
        raise InputError(
            f"{files.where}: no images in class folders; arrange them as CLASS/image.png or train/CLASS/image.png"
        )
    classes = _class_order(files, root, train)
    test = _test_part(files, root, test_names) if train_name is not None else {}
    foreign = sorted(set(test.values()) - set(classes))
    if foreign:
        raise InputError(
            f"{files.where}: the class '{foreign[0]}' of the test part is not in the training part; add or remove it"
        )

    index = {image: place for place, image in enumerate([*train, *test])}
    encoded = ((index[member], member, files.read(member)) for member in files.names if member in index)
    images = decode_images(encoded, len(index), image_size, progress)
    number = {label: place for place, label in enumerate(classes)}
    labels = torch.tensor([number[label] for label in (*train.values(), *test.values())])
    cut = len(train)
    if not test:
        return with_test_part(name, images, labels, None, None, classes)
    return with_test_part(name, images[:cut], labels[:cut], images[cut:], labels[cut:], classes)


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


def _by_folder(files: Files, part: _Folder) -> Labelled:
    """Label each image with the folder that it is in, in the order of the names."""
    labelled: Labelled = {}
    for label, folder in sorted(part.folders.items()):
        images = sorted(folder.images())
        if not images:
            raise InputError(f"{files.where}: the class folder {folder.path} holds no image; add some or remove it")
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


def _test_part(files: Files, root: _Folder, candidates: list[str]) -> Labelled:
    """The labelled images of the first part that has labels: a list of them, or class folders."""
    for name in candidates:
        if _ANNOTATIONS in root.folders[name].files:
            return _annotated(files, root.folders[name])
    for name in candidates:
        if root.folders[name].folders:
            return _by_folder(files, root.folders[name])
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
