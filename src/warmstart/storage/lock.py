"""One process a folder: a lock that the operating system releases when the process ends, also when it is killed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from warmstart.errors import InputError, WorkFailedError
from warmstart.storage.atomic import remove_leftovers, write_text

_LOCK, _PID = ".warmstart.lock", ".warmstart.pid"
_NOT_OURS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}
"""There is something else, such as a symbolic link, or it belongs to another user."""
_IMPOSSIBLE = {errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG, errno.ENOSYS}
"""The file system is read-only, or one such as /proc, or has no locks; or the name is too long."""


@dataclass(frozen=True)
class Claim:
    """That a folder is one process's, for all that write there; another machine can check it too."""

    folder: Path
    text: str
    """What the process that holds the lock has written: its id, and a word that no other lock has."""

    @property
    def holds(self) -> bool:
        """Whether the folder and its lock are still there, and no other process has taken it since."""
        try:
            return (self.folder / _LOCK).exists() and (self.folder / _PID).read_text() == self.text
        except (OSError, ValueError):
            return False

    def check(self) -> None:
        """Raise WorkFailedError unless it holds."""
        if not self.holds:
            raise WorkFailedError(
                f"{self.folder} or its lock was removed or replaced while this process used it, which stops without "
                "writing more there"
            )


class FolderLock:
    """Keep other warmstart processes out of an output folder: `with FolderLock(out) as claim: ...`.

    The folder is made if it is missing, and the temporary files of killed processes are removed. Two files stay behind,
    unless nothing else was written into a new folder, which then goes again: the lock file, which is always empty, and
    one with the holder's process id, for the message. Neither means that the folder is locked: only the operating
    system's lock does, which ends with the process that took it. ``flag`` names the folder's in errors.
    """

    def __init__(self, folder: Path, flag: str = "--out", *, on_wait: Callable[[str], None] | None = None) -> None:
        """Prepare to take the lock; with ``on_wait``, which is told who holds it, to wait until it is free."""
        self.folder = folder
        self._flag, self._on_wait = flag, on_wait
        self._made: list[Path] = []  # the folders that were made, innermost first
        self._process = os.getpid()
        self._lock: FileLock | None = None

    def __enter__(self) -> Claim:
        """Take the lock; InputError if another process holds it and is not waited for, or nothing can be written."""
        lock = FileLock(self.folder / _LOCK, blocking=False, fallback_to_soft=False)
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            pid = self.folder / _PID
            holder = pid.read_text(errors="replace").partition(" ")[0] if pid.is_file() else "unknown"
            held = f"{self.folder} is in use by another warmstart process (pid {holder})"
            if self._on_wait is None:
                raise InputError(f"{held}; wait for it or choose another {self._flag}") from None
            self._on_wait(held)
            lock.acquire(blocking=True)
        except OSError as error:
            if error.errno not in _NOT_OURS | _IMPOSSIBLE:  # a full disk, say, for which another folder is no remedy
                raise
            cause = f"{error.strerror}: {error.filename or lock.lock_file}"
            raise InputError(
                f"{self.folder} is not a folder to write to ({cause}); choose another {self._flag}"
            ) from error
        claim = Claim(self.folder, f"{os.getpid()} {secrets.token_hex(8)}")
        try:
            write_text(self.folder / _PID, claim.text)
            remove_leftovers(self.folder)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        return claim

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._remove_if_unused()
            self._lock.release()
            self._lock = None

    def _remove_if_unused(self) -> None:
        """Remove a folder that was made for work which was refused before it wrote anything."""
        with suppress(OSError):
            mine = bool(self._made) and self._process == os.getpid()
            if mine and {entry.name for entry in self.folder.iterdir()} <= {_LOCK, _PID}:
                for name in (_PID, _LOCK):
                    (self.folder / name).unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()
