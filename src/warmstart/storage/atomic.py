"""Files that are either the old one or the new one, whole, whenever a process is killed or the disk is full."""

import os
import secrets
from pathlib import Path

_SUFFIX = ".warmstart-tmp"


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, or leave the old one untouched.

    Args:
        path: The file; its folder must exist.
        text: The content, whose line ends are kept as they are.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, or leave the old one untouched.

    The data reaches the disk under another name in the same folder before it takes the old file's place, so an
    `OSError` (a full disk, say) changes nothing and leaves nothing behind. A kill leaves a temporary file, which
    `remove_leftovers` finds.

    Args:
        path: The file; its folder must exist.
        data: The content.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may keep the new name and lose the data
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say whose file it was
            error.filename = str(path)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of files they were writing, in the folder and below it.

    Args:
        folder: A folder in which nobody writes: call this while holding its lock.
    """
    for leftover in folder.rglob(f".*{_SUFFIX}"):
        leftover.unlink(missing_ok=True)
