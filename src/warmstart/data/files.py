"""Files in a folder, a zip or a tar, behind one interface. Nothing is ever extracted to disk."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import Protocol

from warmstart.data.unreadable import unreadable
from warmstart.errors import InputError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_FILE_BYTES = 256 * 1024 * 1024
"""A file inside a data set that is larger, unpacked, is refused."""

_MAX_DEPTH = 64
_DAMAGED = "the archive is truncated or damaged; download or pack it again"
_UNREADABLE = (OSError, EOFError, zlib.error, LZMAError, zipfile.BadZipFile, tarfile.TarError)


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


def visible_name(name: str) -> str | None:
    """Normalise a member's name; None if it is to be ignored: absolute, hidden, with ``..``, macOS's or too deep."""
    path = PurePosixPath(name.replace("\\", "/"))
    ignored = any(part == "__MACOSX" or part.startswith(".") for part in path.parts)
    if path.is_absolute() or ignored or not 0 < len(path.parts) <= _MAX_DEPTH:
        return None
    return str(path)


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder, or an archive whose name ends in one of ``ARCHIVE_SUFFIXES``."""
    if path.is_dir():
        yield _FolderFiles(path)
        return
    try:
        archive = zipfile.ZipFile(path) if path.suffix.lower() == ".zip" else tarfile.open(path)  # noqa: SIM115, closed by `with archive` below
    except _UNREADABLE as error:
        raise InputError(unreadable(str(path), error, _DAMAGED)) from error
    with archive:
        yield _ZipFiles(path, archive) if isinstance(archive, zipfile.ZipFile) else _TarFiles(path, archive)


def _check_bytes(where: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise InputError(f"{where}: {size / 2**20:.0f} MiB, the limit is {MAX_FILE_BYTES // 2**20} MiB; remove it")


class _FolderFiles:
    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        self.names: list[str] = []
        self.folders: set[str] = set()
        visited = {path.resolve()}
        for root, folders, names in os.walk(path, followlinks=True):
            here = Path(root)
            folders[:] = sorted(name for name in folders if visible_name(name) is not None)
            for name in list(folders):  # links to folders are followed, but not in a loop
                real = (here / name).resolve()
                if real in visited:
                    folders.remove(name)
                visited.add(real)
            relative = here.relative_to(path)
            self.folders |= {(relative / name).as_posix() for name in folders}
            self.names += [(relative / name).as_posix() for name in sorted(names) if visible_name(name)]

    def read(self, name: str) -> bytes:
        path = self._path / name
        try:
            _check_bytes(str(path), path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise InputError(unreadable(str(path), error)) from error


class _ZipFiles:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.where = str(path)
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.folders: set[str] = set()
        for member in archive.infolist():
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
        member, where = self._members[name], f"{self.where}: {name}"
        _check_bytes(where, member.file_size)
        if member.flag_bits & 1:
            raise InputError(f"{where}: encrypted; pack the archive without a password")
        try:
            # read() with a bound: without one, a member with a false size is unpacked up to 2 GiB first
            with self._archive.open(member) as stream:
                return stream.read(member.file_size + 1)
        except (*_UNREADABLE, NotImplementedError) as error:
            raise InputError(unreadable(where, error, _DAMAGED)) from error


class _TarFiles:
    def __init__(self, path: Path, archive: tarfile.TarFile) -> None:
        self.where = str(path)
        self._archive = archive
        self._members: dict[str, tarfile.TarInfo] = {}
        self.folders: set[str] = set()
        try:
            for member in archive:
                name = visible_name(member.name)
                if name is not None and member.isdir():
                    self.folders.add(name)
                elif name is not None and member.isreg():
                    self._members[name] = member
            self._check_end()
        except _UNREADABLE as error:
            raise InputError(unreadable(self.where, error, _DAMAGED)) from error
        self.names = sorted(self._members, key=lambda name: self._members[name].offset)

    def _check_end(self) -> None:
        """A whole tar ends with a block of zeros; tarfile accepts any end, even in the middle of a header."""
        stream = self._archive.fileobj
        if stream is None:
            raise tarfile.ReadError("closed")
        stream.seek(self._archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")

    def read(self, name: str) -> bytes:
        member, where = self._members[name], f"{self.where}: {name}"
        _check_bytes(where, member.size)
        try:
            stream = self._archive.extractfile(member)
            return stream.read() if stream else b""
        except _UNREADABLE as error:
            raise InputError(unreadable(where, error, _DAMAGED)) from error
