"""One process a folder: a lock that the operating system lets go of when its holder dies, however it dies."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from warmstart.errors import InputError
from warmstart.storage.atomic import remove_leftovers, write_text

_LOCK, _PID = ".warmstart.lock", ".warmstart.pid"
_ANOTHERS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}
"""Something else lies there, such as a symbolic link, or it is another user's."""
_IMPOSSIBLE = {errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG, errno.ENOSYS}
"""On a read-only file system, on one such as /proc or without locks, with too long a name."""


class FolderLock:
    """Keep other warmstart processes out of an output folder: `with FolderLock(out): ...`.

    The folder is made if it is missing, and rid of the temporary files of killed processes. Two files stay behind and
    mean nothing by themselves: the lock file, which nothing is ever written to, and the holder's process id, which a
    refused process names. What counts is the operating system's lock, which ends with the process that took it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FileLock | None = None

    def __enter__(self) -> FolderLock:
        """Take the lock, without waiting for it.

        Returns:
            The lock.

        Raises:
            InputError: If another process holds it, or the folder cannot be written to.
            OSError: If the disk fails or is full.
        """
        lock = FileLock(self.folder / _LOCK, blocking=False, fallback_to_soft=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            pid = self.folder / _PID
            holder = pid.read_text().strip() if pid.is_file() else "unknown"
            raise InputError(
                f"{self.folder} is in use by another warmstart process (pid {holder}); "
                "wait for it or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in _ANOTHERS | _IMPOSSIBLE:  # a full disk, which another folder would not mend
                raise
            cause = f"{error.strerror}: {error.filename or lock.lock_file}"
            raise InputError(f"{self.folder} is not a folder to write to ({cause}); choose another --out") from error
        try:
            write_text(self.folder / _PID, str(os.getpid()))
            remove_leftovers(self.folder)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
