"""One process a folder: a lock that the operating system releases when the process ends, also when it is killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from warmstart.errors import InputError
from warmstart.storage.atomic import remove_leftovers, write_text

_LOCK, _PID = ".warmstart.lock", ".warmstart.pid"
_NOT_OURS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}
"""There is something else, such as a symbolic link, or it belongs to another user."""
_IMPOSSIBLE = {errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG, errno.ENOSYS}
"""The file system is read-only, or one such as /proc, or has no locks; or the name is too long."""


class FolderLock:
    """Keep other warmstart processes out of an output folder: `with FolderLock(out): ...`.

    The folder is made if it is missing, and the temporary files of killed processes are removed. Two files stay behind:
    the lock file, which is always empty, and one with the holder's process id, for the message. Neither means that the
    folder is locked: only the operating system's lock does, which ends with the process that took it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FileLock | None = None

    def __enter__(self) -> FolderLock:
        """Take the lock without waiting; InputError if another process holds it or the folder is not writable."""
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
            if error.errno not in _NOT_OURS | _IMPOSSIBLE:  # a full disk, say, for which another folder is no remedy
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
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
