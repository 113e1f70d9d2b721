"""Files that are written whole or not at all, also when the process is killed or the disk is full."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

_SUFFIX = ".warmstart-tmp"


def write_text(path: Path, text: str, *, check: Callable[[], None] | None = None) -> None:
    """Write a text file in UTF-8, its line ends as they are, or leave the old one untouched; as `write_bytes`."""
    write_bytes(path, text.encode(), check=check)


def write_bytes(path: Path, data: bytes, *, check: Callable[[], None] | None = None) -> None:
    """Write a file in an existing folder, or leave the old one untouched.

    ``check`` is called when all is written, right before it takes the old file's place, and may raise.

    The data reaches the disk under another name in the same folder before it takes the old file's place, so an
    `OSError` (a full disk, say) changes nothing and leaves nothing behind. A kill leaves a temporary file, which
    `remove_leftovers` finds.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
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


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes, here and in ``runs/*``; the caller must hold the folder's lock.

    Another grid's folder within this one has a lock of its own.
    """
    for place in (folder, *folder.glob("runs/*")):
        for leftover in place.glob(f".*{_SUFFIX}"):
            leftover.unlink(missing_ok=True)
