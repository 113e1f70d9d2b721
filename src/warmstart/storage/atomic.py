"""Files and folders that are written whole or not at all, also when the process is killed or the disk is full."""

import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".warmstart-tmp"


def write_text(path: Path, text: str, *, check: Callable[[], None] | None = None) -> None:
    """Write a text file in UTF-8, its line ends as they are, or leave the old one untouched; as `write_bytes`."""
    write_bytes(path, text.encode(), check=check)


def write_bytes(path: Path, data: bytes, *, check: Callable[[], None] | None = None) -> None:
    """Write a file in an existing folder, or leave the old one untouched; as `new_file`."""
    with new_file(path, check=check) as file:
        file.write(data)


@contextmanager
def new_file(path: Path, *, check: Callable[[], None] | None = None) -> Iterator[BinaryIO]:
    """Write a file in an existing folder piece by piece; unless all goes well, the old one stays untouched.

    ``check`` is called when all is written, right before it takes the old file's place, and may raise.

    The data reaches the disk under another name in the same folder before it takes the old file's place, so an
    `OSError` (a full disk, say) changes nothing and leaves nothing behind. A kill leaves a temporary file, which
    `remove_leftovers` finds.

    Yields:
        The file, to be written to.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may keep the new name and lose the data
        if check is not None:
            check()
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which file it was
            error.filename = str(path)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under another name; when all is in it, it takes the place of an earlier one.

    If anything is raised, the earlier one stays and nothing is left behind. A kill between two renames leaves neither,
    and what was moved aside goes with the next folder of this name that is made here; two processes must not make it
    at the same time.

    Yields:
        The folder to fill, beside ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_beside(path)
    filled, aside = _beside(path), _beside(path)
    filled.mkdir()
    try:
        yield filled
        if path.exists():
            path.rename(aside)
        filled.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    finally:
        _remove_beside(path)


def _beside(path: Path) -> Path:
    """A name in the same folder that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")


def _remove_beside(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????{_SUFFIX}"):
        shutil.rmtree(leftover)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes, here and in ``runs/*``; the caller must hold the folder's lock.

    Another grid's folder within this one has a lock of its own.
    """
    for place in (folder, *folder.glob("runs/*")):
        for leftover in place.glob(f".*{_SUFFIX}"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)
