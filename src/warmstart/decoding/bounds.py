"""What reading may cost: regular files only, and sizes far above those of honest data. All bounds stand here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil

from warmstart.decoding.unreadable import unreadable
from warmstart.errors import InputError

MAX_FILE_BYTES = 256 * 2**20
"""Of a file inside a data set, unpacked."""
MAX_HEADER_BYTES = 2**20
"""Of what a tar says of one file: its names and attributes."""
MAX_PICKLE_STEPS = 3_000_000
"""CIFAR-100's training part takes half a million."""
MAX_KEYS = 1000
"""Entries of a dictionary; CIFAR's have half a dozen."""
MAX_CLASSES = 1_000_000
MAX_TEXT = 1000
"""Characters of a dictionary's key and of a class's name."""

# Encoded images hardly shrink when they are packed, others by a factor of ten; zeros shrink a thousandfold and more.
_FREE_BYTES = 2**30
_MAX_RATIO = 200
_ENTRY_BYTES = 8192  # what a file of an archive, or a row of a table, counts at least: so much memory and time it takes


def require_regular(path: Path) -> int:
    """The size of a regular file; InputError for anything else: a pipe may never begin, and a device never end."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(unreadable(str(path), error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: a folder, pipe or device, not a regular file; replace or remove it")
    return status.st_size


def read_file(path: Path) -> bytes:
    """The content of a regular file that is not too large."""
    size = require_regular(path)
    require_file_bytes(str(path), size)
    try:
        with path.open("rb") as file:
            return file.read(size)  # with a bound: files of /proc claim 0 bytes, and some never end
    except OSError as error:
        raise InputError(unreadable(str(path), error)) from error


def require_file_bytes(where: str, size: int) -> None:
    """Raise InputError if one file of a data set is too large."""
    if size > MAX_FILE_BYTES:
        raise InputError(f"{where}: {size / 2**20:.0f} MiB, the limit is {MAX_FILE_BYTES // 2**20} MiB; remove it")


def require_unpackable(where: str, unpacked: int, packed: int, entries: int = 0) -> None:
    """Raise InputError if a file unpacks to more than 1 GiB and more than 200 times its size."""
    cost = unpacked + entries * _ENTRY_BYTES
    if cost > max(_FREE_BYTES, _MAX_RATIO * packed):
        raise InputError(
            f"{where}: {_size(packed)} that unpack to {_size(cost)} or more, over {_MAX_RATIO} times as much, as no "
            "images do; replace it"
        )


def require_memory(where: str, size: int, remedy: str) -> None:
    """Raise InputError if something is larger than all of this machine's memory."""
    names = getattr(os, "sysconf_names", {})
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else size
    if size > memory:
        raise InputError(f"{where} need {_size(size)} of memory; {remedy}")


def free_memory() -> int:
    """Bytes that can be used: what is free on this machine, or in the control group (container) if that is less."""
    free = [psutil.virtual_memory().available]
    for group, limit, used in _GROUPS:
        for inside in ("", *_own_groups()):
            folder = Path(group + inside)
            try:
                numbers = [int((folder / name).read_text()) for name in (limit, used)]
                words = (folder / "memory.stat").read_text().split()
                files = int(words[words.index("inactive_file") + 1])  # kept only while nobody needs the memory
            except (OSError, ValueError):  # there is none, or no limit
                continue
            free.append(max(0, numbers[0] - numbers[1] + files))
    return int(min(free))


_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where Linux has control groups, of version 2 and 1: the files with the limit and the use."""


def _own_groups() -> list[str]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":", 2)[2] for line in lines if line.split(":", 2)[1] in ("", "memory")]


def _size(count: int) -> str:
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes")) if count >= u or u == 1)
    return f"{count / unit:.0f} {name}"
