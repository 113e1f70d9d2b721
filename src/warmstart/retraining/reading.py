"""What lies in the data folder: files that are new or changed are read, and what cannot be read is listed.

Images in folders or of a CSV are files of their own. Shards (parquet, .npz, archives) hold many examples; one whose
columns, shape, label type or numbers do not fit is refused as a whole, and the others are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from warmstart.data.arrays import read_npz
from warmstart.data.files import ARCHIVE_SUFFIXES, open_files, stamp
from warmstart.data.label_files import SUFFIXES as LISTS
from warmstart.data.listing import Listing
from warmstart.data.load import open_listing, require_path
from warmstart.decoding.decode import Encoded, ImageStack, Unread, decode_images, is_image
from warmstart.decoding.unreadable import in_one_line, may_pass
from warmstart.decoding.wanted import EXACT, Wanted
from warmstart.errors import InputError
from warmstart.retraining.index import KnownFile
from warmstart.retraining.snapshots import digest
from warmstart.wording import printable

SHARDS = (".parquet", ".npz", *ARCHIVE_SUFFIXES)
ACCEPTED = "a folder of images by class, of parquet or .npz shards, a CSV of paths and labels, or one such file"


@dataclass(frozen=True)
class Expected:
    """What examples must be like, as far as it is known."""

    wanted: Wanted
    channels: int | None = None
    """None: 3 where any image has colour, else 1."""
    whole_numbers: bool | None = None
    """Whether the labels of shards are numbers, not names; None: as in the first shard."""
    layout: str = ""
    """How it was understood before; empty if that is not known."""
    begun: bool = False
    """Whether something has arrived before, so that nothing need be there any more."""


@dataclass(frozen=True, eq=False)
class Found:
    """What was found."""

    present: Mapping[str, KnownFile]
    """All files; those that were read with what they hold now."""
    read: frozenset[str]
    """The files that were new or changed, and were read."""
    images: Tensor
    """uint8 (N, C, H, W), all examples of these, in the order of arrival."""
    labels: list[str]
    digests: list[bytes]
    bad: list[tuple[str, str]]
    """What cannot be read, and why: files, or rows of a table."""
    rows: int
    """Examples that were looked at, a shard that cannot be read counted as one."""
    whole_numbers: bool | None
    bits: int
    """Of images of 16 bits, how many are in use."""
    layout: str
    """How it was understood: ``shards``, or as `Listing.layout` says; empty where nothing is there."""
    notes: Sequence[str]
    """What lies there and is not read at all."""

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.images.shape[1]


@in_one_line()
def find(data: str, known: Mapping[str, KnownFile], expected: Expected) -> Found:
    """Look at a data folder or file.

    Args:
        data: Its path.
        known: Its files when they were last read; one with the same size, time of change and class is not read again.
        expected: What the examples must be like.

    Returns:
        What was found.

    Raises:
        InputError: If it is not there, is nothing that can be read, or is understood in another way than before.
    """
    path = require_path(data, (), ACCEPTED)
    root, names = _names(path)
    shards = sorted((name for name in names if name.lower().endswith(SHARDS)), key=_in_order)
    images = [name for name in names if is_image(name)]
    if shards and images:
        raise InputError(
            f"{path}: holds images and shards, such as {images[0]} and {shards[0]}; move one kind elsewhere"
        )
    reader = _Reader(known, expected)
    if shards:
        reader.require_layout(path, "shards")
        for name in shards:
            reader.take_shard(name, root / name)
    elif images or not expected.begun or (expected.layout[:4] in ("", "list") and _has_list(names)):
        reader.take_images(path)
    return reader.found()


def _has_list(names: Iterable[str]) -> bool:
    return any(name.lower().endswith(LISTS) for name in names)


def _names(path: Path) -> tuple[Path, list[str]]:
    """A folder and the names of all files in it, or of the one that the path names."""
    if path.is_file():
        return path.parent, [path.name]
    with open_files(path) as files:
        return path, files.names


def _in_order(name: str) -> str:
    """A key that sorts names with numbers by their size, so that months and days come in their order."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)


class _Reader:
    def __init__(self, known: Mapping[str, KnownFile], expected: Expected) -> None:
        self._known, self._expected = known, expected
        self._wanted, self._whole_numbers = expected.wanted, expected.whole_numbers
        self._present: dict[str, KnownFile] = {}
        self._read: set[str] = set()
        self._images: list[Tensor] = []
        self._labels: list[str] = []
        self._paths: list[str] = []
        self._bad: list[tuple[str, str]] = []
        self._rows = 0
        self._layout = ""
        self._notes: list[str] = []

    def require_layout(self, path: Path, layout: str) -> None:
        """Raise InputError if the data is understood in another way than before: by a stray file, say."""
        before, self._layout = self._expected.layout, printable(layout)
        if before.startswith("list ") and not self._layout.startswith("list "):
            raise InputError(f"{path}: {before.removeprefix('list ')} has no rows any more, or is gone; restore it")
        if before not in ("", self._layout):
            raise InputError(
                f"{path}: is read as '{layout}' now and was as '{before}' before; move away what has changed that, or "
                "choose another --state"
            )

    def take_shard(self, name: str, file: Path) -> None:
        """Read a shard, or refuse it as a whole."""
        if not self._is_new(name, file, ""):
            return
        try:
            self._take_table(name, file)
        except InputError as error:
            self._refuse(name, str(error).removeprefix(str(file)), may_pass(error))
            self._rows += 1

    def _take_table(self, name: str, file: Path) -> None:
        if file.suffix.lower() == ".npz":
            data = read_npz(file, self._wanted)
            images, labels = data.train_images, [data.classes[label] for label in data.train_labels.tolist()]
            bad: list[Unread] = []
        else:
            with open_listing(file, self._wanted) as listing:
                if listing is None:
                    raise InputError("holds no images by class; replace or remove it")
                images, labels, bad = self._decoded(replace(listing, test_labels=None))
        numbers = all(label.lstrip("-").isdigit() for label in labels)
        if self._whole_numbers not in (None, numbers):
            kinds = ("numbers", "names") if numbers else ("names", "numbers")
            raise InputError(f"its labels are {kinds[0]}, those of the others {kinds[1]}; make them alike")
        self._whole_numbers = numbers
        self._bad += [(printable(f"{name}: {row.removeprefix(f'{file}: ')}"), printable(why)) for row, why, _ in bad]
        self._rows += len(labels) + len(bad)
        self._take(images, labels, [name] * len(labels))

    def take_images(self, path: Path) -> None:
        """Read images that are files of their own."""
        root = path if path.is_dir() else path.parent
        with open_listing(path, self._wanted) as listing:
            if listing is None:
                raise InputError(f"{path}: not a kind of data that can arrive in stages; accepted are {ACCEPTED}")
            self.require_layout(path, listing.layout)
            self._notes += map(printable, listing.notes)
            names = listing.names[: len(listing.labels)]
            labels = dict(zip(names, (listing.classes[label] for label in listing.labels.tolist()), strict=True))
            new = {name for name, label in labels.items() if self._is_new(name, root / name, label)}
            listing = listing.training_images(new)
            images, kept, bad = self._decoded(listing)
        for one in bad:
            self._refuse(*one)
        unread = {one.name for one in bad}
        self._rows += len(new)
        self._take(images, kept, [name for name in listing.names if name not in unread])

    def _decoded(self, listing: Listing) -> tuple[Tensor, list[str], list[Unread]]:
        """The images of a listing's training part and their classes, and those that are left out."""
        count = len(listing.labels)
        stack = ImageStack(count, self._wanted.progress)

        def encoded() -> Iterator[Encoded]:
            return (one for one in listing.encoded() if one[0] < count)

        decode_images(encoded, stack, self._wanted)
        if stack.top:  # of 16 bits, the first ones' rule holds for all
            self._wanted = replace(self._wanted, bits=stack.bits)
        bad = [one._replace(reason=one.reason.removeprefix(f"{one.name}: ")) for one in stack.unreadable.values()]
        labels = [listing.classes[x] for at, x in enumerate(listing.labels.tolist()) if at not in stack.unreadable]
        return stack.images(), labels, bad

    def _is_new(self, name: str, file: Path, label: str) -> bool:
        """Note that a file is there; whether it must be read."""
        name = printable(name)  # what is no UTF-8 cannot be kept in the index
        known, (_, size, changed) = self._known.get(name), stamp(file)
        now = KnownFile(size, changed, printable(label), b"", "")
        if known is not None and replace(known, digests=b"", bad="") == now:
            self._present[name] = known
            return False
        self._present[name] = now
        self._read.add(name)
        return True

    def _take(self, images: Tensor, labels: Iterable[str], paths: Iterable[str]) -> None:
        if not len(images):
            return
        if self._wanted.size is None:  # the first one's holds for all
            height, width = images.shape[-2:]
            self._wanted = replace(self._wanted, size=(height, width), fit=EXACT)
        self._images.append(images)
        self._labels += map(printable, labels)
        self._paths += map(printable, paths)

    def _refuse(self, name: str, reason: str, passing: bool) -> None:
        """Leave a file out; if that may pass, it is not remembered, so that the next call reads it again."""
        reason = printable(reason.removeprefix(name).removeprefix(": "))
        name = printable(name)
        self._bad.append((name, reason))
        if not passing:
            self._present[name] = replace(self._present[name], bad=reason)
            return
        self._read.discard(name)
        del self._present[name]
        if name in self._known:
            self._present[name] = self._known[name]

    def found(self) -> Found:
        """All that was read."""
        channels = self._expected.channels or max((part.shape[1] for part in self._images), default=1)
        widest = max([channels, *(part.shape[1] for part in self._images)])
        images = torch.cat([part.expand(-1, widest, -1, -1) for part in self._images] or [_NONE])
        if images.shape[1] > channels:
            images = self._without_colour(images)
        digests = [digest(image, label) for image, label in zip(images, self._labels, strict=True)]
        held: dict[str, list[bytes]] = {}
        for path, one in zip(self._paths, digests, strict=True):
            held.setdefault(path, []).append(one)
        now = {path: replace(self._present[path], digests=b"".join(ones)) for path, ones in held.items()}
        return Found(
            {**self._present, **now},
            frozenset(self._read),
            images,
            self._labels,
            digests,
            self._bad,
            self._rows,
            self._whole_numbers,
            self._wanted.bits or 16,
            self._layout,
            self._notes,
        )

    def _without_colour(self, images: Tensor) -> Tensor:
        """Images in one channel; those that have colours are refused."""
        grey = (images == images[:, :1]).flatten(1).all(1)
        for place in (~grey).nonzero().flatten().tolist():
            self._bad.append((self._paths[place], "in colour among grey images; convert or remove it"))
        kept = grey.tolist()
        self._labels = [label for label, keep in zip(self._labels, kept, strict=True) if keep]
        self._paths = [path for path, keep in zip(self._paths, kept, strict=True) if keep]
        return images[grey, :1]


_NONE = torch.empty(0, 1, 1, 1, dtype=torch.uint8)
