"""One process a folder: a lock that the operating system lets go of when its holder dies, however it dies."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import IO

from warmstart.errors import InputError
from warmstart.storage.atomic import remove_leftovers

_NAME = ".warmstart.lock"
_ANOTHERS = {errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM}
_IMPOSSIBLE = {errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG}
"""On a read-only file system, on one such as /proc, with too long a name."""

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 30  # a locked byte cannot be read, so not one of those that hold the process id

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FolderLock:
    """Keep other warmstart processes out of an output folder: `with FolderLock(out): ...`.

    The folder is made if it is missing, and rid of the temporary files of killed processes. The lock file stays
    behind and means nothing by itself: what counts is the operating system's lock on it, which ends with the
    process. (A child made by `os.fork` shares it, and keeps it until it ends too.)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[str] | None = None

    def __enter__(self) -> FolderLock:
        """Take the lock, without waiting for it.

        Returns:
            The lock.

        Raises:
            InputError: If another process holds it, or the folder cannot be written to.
            OSError: If the disk fails or is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / _NAME).open("a+", encoding="utf-8")
        except OSError as error:
            if error.errno not in _ANOTHERS | _IMPOSSIBLE:  # a full disk, which another folder would not mend
                raise
            raise InputError(
                f"{self.folder} is not a folder to write to ({error.strerror}: {error.filename}); choose another --out"
            ) from error
        if not _try_lock(file.fileno()):
            with file:
                file.seek(0)
                holder = file.read(20).strip() or "unknown"
            raise InputError(
                f"{self.folder} is in use by another warmstart process (pid {holder}); "
                "wait for it or choose another --out"
            )
        self._file = file
        try:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            remove_leftovers(self.folder)
        except BaseException:
            file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None
