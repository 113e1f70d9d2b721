"""Decoded images on disk, mapped into memory: for data that are larger than it, and to decode once only.

A folder of the cache holds the pixels of one data set in one size, in a file as they would lie in memory, and how far
it has come. Its name is a hash of the names, sizes and times of change of the files that they come from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from warmstart.decoding.bounds import free_memory
from warmstart.decoding.decode import Encoded, ImageStack, Unread, decode, decode_images
from warmstart.decoding.unreadable import reading
from warmstart.decoding.wanted import OnDecoded, Wanted
from warmstart.errors import InputError

SHARE = 0.5
"""Of the free memory; larger data are kept on disk."""

_FORMAT = 1
_SAVE_EVERY = 500
_TRIED = 10
_STATE = "state.json"


def where_to_decode(encoded: Callable[[], Iterable[Encoded]], total: int, wanted: Wanted) -> Path | None:
    """The folder of the cache: the one that is asked for, or the user's own if memory is short; None for memory."""
    if wanted.cache is not None:
        return wanted.cache.expanduser()
    for (_, name, read), _ in zip(encoded(), range(_TRIED), strict=False):
        try:
            first, _ = decode(read(), name, wanted)
        except InputError:
            continue  # it is named later
        return _users_own() if total * first.size > SHARE * free_memory() else None
    return None


def _users_own() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "warmstart" / "images"


def decoded_on_disk(
    cache: Path,
    key: tuple[object, ...],
    encoded: Callable[[], Iterable[Encoded]],
    total: int,
    where: str,
    wanted: Wanted,
) -> tuple[ImageStack, tuple[str, ...], Tensor, Path]:
    """Decode images into a folder of the cache, or take those that are there; an interrupted start is gone on from.

    Returns:
        How it went; notes; the images, mapped from the file; the file.
    """
    digest = hashlib.sha256(repr((_FORMAT, *key)).encode()).hexdigest()[:16]
    folder = cache / digest
    lock = FileLock(folder / "lock")
    with reading(f"--cache {cache}", "give a folder that can be written to"):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        stack = _StackOnDisk(folder, total, where, wanted.progress)
        if not stack.state.complete:
            decode_images(encoded, stack, wanted)
        notes = stack.check(where, wanted.skip_unreadable)
        stack.complete()
    finally:
        lock.release()
    if wanted.cache is None:
        size = f"{stack.path.stat().st_size / 1e9:.2g} GB"
        notes += (
            f"decoded images ({size}, over half of the free memory) lie in {folder}; remove it when you are done",
        )
    return stack, notes, map_images(stack.path, stack.state.shape), stack.path


@dataclass(frozen=True)
class _State:
    """How far a folder has come."""

    shape: tuple[int, ...] = ()
    """Of the array in the file; without the unreadable images when it is complete."""
    done: int = 0
    bits: int = 16
    top: int = 0
    unreadable: tuple[tuple[Any, ...], ...] = ()
    """Places, each with the fields of `Unread`."""
    first: str = ""
    complete: bool = False
    checksum: int = 0

    @property
    def file(self) -> str:
        return f"{self.shape[1]}-channel.uint8"


class _StackOnDisk(ImageStack):
    """A stack in a file, which begins where an earlier process stopped."""

    def __init__(self, folder: Path, total: int, where: str, progress: OnDecoded | None) -> None:
        super().__init__(total, progress)
        self._folder, self._where = folder, where
        self.state = self._read_state()
        if not self.state.shape:
            return
        state = self.state
        self.done, self.bits, self.top, self._first = state.done, state.bits, state.top, state.first
        self.unreadable = {index: Unread(*why) for index, *why in state.unreadable}
        self._array = self._mapped("r" if state.complete else "r+")

    @property
    def path(self) -> Path:
        """The file of the pixels."""
        return self._folder / self.state.file

    def _read_state(self) -> _State:
        """What is in the folder, or nothing if it is not whole."""
        try:
            held: dict[str, Any] = json.loads((self._folder / _STATE).read_bytes())
            held["shape"], held["unreadable"] = tuple(held["shape"]), tuple(map(tuple, held["unreadable"]))
            state = _State(**held)
            path = self._folder / state.file
            whole = path.stat().st_size == int(np.prod(state.shape))
            if state.complete:
                whole = whole and _checksum(path) == state.checksum
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return _State()
        return state if whole else _State()

    def _mapped(self, mode: Any) -> NDArray[np.uint8]:
        return np.memmap(self.path, np.uint8, mode, shape=self.state.shape)

    def _new(self, what: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        self.state = replace(self.state, shape=shape)
        size = int(np.prod(shape))
        try:
            with self.path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # to write into a map on a full disk would be a crash
                elif size > shutil.disk_usage(self._folder).free:
                    raise OSError("No space left on device")
                file.truncate(size)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise InputError(
                f"{self._where}: {what} need {size / 1e9:.2g} GB in {self._folder.parent} ({error.strerror or error}); "
                "give --cache DIR on another disk, or a smaller --image-size N"
            ) from error
        return self._mapped("r+")

    def begin_again(self, bits: int) -> None:
        super().begin_again(bits)
        self._save()

    def _count(self) -> None:
        super()._count()
        if self.done % _SAVE_EVERY == 0 and self._array is not None:
            self._save()

    def _save(self, **changes: Any) -> None:
        """Write down how far it has come, once the pixels are on the disk."""
        assert isinstance(self._array, np.memmap)
        self._array.flush()
        unreadable = tuple((index, *why) for index, why in self.unreadable.items())
        now = {"done": self.done, "bits": self.bits, "top": self.top, "unreadable": unreadable, "first": self._first}
        self.state = replace(self.state, **{**now, **changes})
        temporary = self._folder / f"{_STATE}.tmp"
        with temporary.open("w") as file:
            json.dump(vars(self.state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / _STATE)

    def complete(self) -> None:
        """Close the gaps of what cannot be read, and let the file be used from now on."""
        if self.state.complete:
            return
        if self.unreadable:
            self._save(done=0)  # killed from here on, it begins anew
        kept = self.images()
        assert isinstance(self._array, np.memmap)
        self._array.flush()
        os.truncate(self.path, kept.numel())
        self._array = None
        self.state = replace(self.state, shape=tuple(kept.shape))
        self._array = self._mapped("r+")
        self._save(complete=True, checksum=_checksum(self.path))
        for other in self._folder.glob("*-channel.uint8"):
            if other != self.path:
                other.unlink()


def map_images(file: Path, shape: tuple[int, ...]) -> Tensor:
    """Images of a file of this shape, read as they are used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch: they cannot be written to
        return torch.from_numpy(np.memmap(file, np.uint8, "r", shape=shape))


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while part := file.read(2**22):
            value = zlib.crc32(part, value)
    return value
