"""Files in a folder, a zip or a tar, behind one interface. Nothing is ever extracted to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from warmstart.decoding.bounds import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    read_file,
    require_file_bytes,
    require_regular,
    require_unpackable,
)
from warmstart.decoding.unreadable import reading
from warmstart.errors import InputError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_NOT_DATA = frozenset(("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
"""Folders that systems put beside the user's own: metadata, thumbnails, wastebaskets."""
_MAX_DEPTH = 64
_PIECE = 4096  # zipfile unpacks so much of bzip2 and LZMA at once, whatever comes of it
_DAMAGED = "the archive is truncated or damaged; download or pack it again"
_UNPACK: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
"""By the first two bytes; a tar that begins otherwise is not packed."""


class Files(Protocol):
    """Regular, visible files by their relative names, with ``/`` between folders."""

    where: str
    """The folder or archive."""
    names: list[str]
    """In the order in which they are fastest to read."""
    folders: set[str]
    """Folders that are known to exist, even if they are empty."""

    def read(self, name: str) -> bytes:
        """The content of one of ``names``."""

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name."""

    def sources(self, names: Iterable[str]) -> Iterator[object]:
        """What tells whether any of these files has changed."""


def stamp(path: Path) -> tuple[str, int, int]:
    """A file's path, size and time of change; zeros if it is not there, of which reading says more."""
    try:
        status = path.stat()
    except OSError:
        return str(path.absolute()), 0, 0
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def visible_name(name: str) -> str | None:
    """Normalise a member's name; None if it is to be ignored: absolute, hidden, with ``..``, a system's or too deep."""
    path = PurePosixPath(name.replace("\\", "/"))
    ignored = any(part in _NOT_DATA or part.startswith(".") for part in path.parts)
    if path.is_absolute() or ignored or not 0 < len(path.parts) <= _MAX_DEPTH:
        return None
    return str(path)


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder, or an archive whose name ends in one of ``ARCHIVE_SUFFIXES``."""
    if path.is_dir():
        yield _FolderFiles(path)
        return
    size = require_regular(path)
    with ExitStack() as opened:
        with reading(str(path), _DAMAGED):
            files: Files
            if path.suffix.lower() == ".zip":
                files = _ZipFiles(path, size, opened.enter_context(zipfile.ZipFile(path)))
            else:
                files = _TarFiles(path, size, opened.enter_context(_unpacked(path)))
        yield files


def _unpacked(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        start = file.read(2)
    stream: IO[bytes] = _UNPACK.get(start, open)(path, "rb")
    return stream


class FilesBeside:
    """Files that are asked for by their paths from a folder; they need not lie within it."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        self.names: list[str] = []
        self.folders: set[str] = set()

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return read_file(self._path / name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._path / name).is_file()

    def sources(self, names: Iterable[str]) -> Iterator[object]:
        """Path, size and time of change of each."""
        return (stamp(self._path / name) for name in names)


def walk(path: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder of a tree, with the visible folders and files in it by name; InputError if one cannot be read."""
    visited = {path.resolve()}
    for root, folders, names in os.walk(path, onerror=_refuse_folder, followlinks=True):
        here = Path(root)
        folders[:] = sorted(name for name in folders if visible_name(name) is not None)
        for name in list(folders):  # links to folders are followed, but not in a loop
            real = (here / name).resolve()
            if real in visited:
                folders.remove(name)
            visited.add(real)
        yield here, folders, sorted(name for name in names if visible_name(name))


def _refuse_folder(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # removed meanwhile
        raise InputError(
            f"{error.filename}: this folder cannot be read ({error.strerror}); permit it, or move the folder elsewhere"
        ) from error


class _FolderFiles(FilesBeside):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for here, folders, names in walk(path):
            relative = here.relative_to(path)
            self.folders |= {(relative / name).as_posix() for name in folders}
            self.names += [(relative / name).as_posix() for name in names]


class _ArchiveFiles:
    """What a zip and a tar have in common."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        self.names: list[str] = []
        self._members: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        return name in self._members

    def _member(self, name: str) -> Any:
        if name not in self._members:
            raise InputError(f"{self.where}: {name}: no such file; correct or remove the name")
        return self._members[name]

    def sources(self, names: Iterable[str]) -> Iterator[object]:
        return iter([stamp(self._path)])


class _ZipFiles(_ArchiveFiles):
    def __init__(self, path: Path, size: int, archive: zipfile.ZipFile) -> None:
        super().__init__(path)
        self._archive = archive
        self.folders: set[str] = set()
        members = archive.infolist()
        require_unpackable(self.where, sum(member.file_size for member in members), size, len(members))
        for member in members:
            name = visible_name(member.filename)
            kind = member.external_attr >> 16 & 0o170000  # the Unix file type; 0 where the packer sets none
            if name is None or kind not in {0, 0o100000, 0o040000}:
                continue
            if member.is_dir():
                self.folders.add(name)
            else:
                self._members[name] = member
        self.names = sorted(self._members, key=lambda name: self._members[name].header_offset)

    def read(self, name: str) -> bytes:
        member, where = self._member(name), f"{self.where}: {name}"
        require_file_bytes(where, member.file_size)
        if member.flag_bits & 1:
            raise InputError(f"{where}: encrypted; pack the archive without a password")
        with reading(where, _DAMAGED), self._archive.open(member) as stream:
            # In pieces that end with the stated size: a member with a false one would be unpacked whole first.
            return b"".join(iter(partial(stream.read, _PIECE), b""))


class _TarFiles(_ArchiveFiles):
    def __init__(self, path: Path, size: int, stream: IO[bytes]) -> None:
        super().__init__(path)
        self._stream = _TarStream(self.where, size, stream)
        self.folders: set[str] = set()
        self._archive = tarfile.TarFile(fileobj=self._stream)
        unpacked = 0
        for count, member in enumerate(self._archive, start=1):
            unpacked += member.size  # what a sparse file unpacks to is not in the stream
            require_unpackable(self.where, unpacked, size, count)
            name = visible_name(member.name)
            if name is not None and member.isdir():
                self.folders.add(name)
            elif name is not None and member.isreg():
                self._members[name] = member
        self._check_end()
        self._stream.longest = MAX_FILE_BYTES
        self.names = sorted(self._members, key=lambda name: self._members[name].offset)

    def _check_end(self) -> None:
        """A whole tar ends with a block of zeros; tarfile accepts any end, even in the middle of a header."""
        self._stream.seek(self._archive.offset)
        if self._stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")

    def read(self, name: str) -> bytes:
        member, where = self._member(name), f"{self.where}: {name}"
        require_file_bytes(where, member.size)
        with reading(where, _DAMAGED):
            stream = self._archive.extractfile(member)
            return stream.read() if stream else b""


class _TarStream(io.RawIOBase):
    """What tarfile reads from: nothing is read or skipped that is larger than it may be."""

    longest = MAX_HEADER_BYTES

    def __init__(self, where: str, packed: int, stream: IO[bytes]) -> None:
        self._where, self._packed, self._stream = where, packed, stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.longest:
            raise tarfile.ReadError(f"{size} bytes at once")
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        require_unpackable(self._where, position, self._packed)
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()
