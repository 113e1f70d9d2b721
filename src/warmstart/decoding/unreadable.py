"""The message that something cannot be read, whichever library failed: one line, of characters that can be shown."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from warmstart.errors import InputError
from warmstart.wording import printable

_LONGEST = 2000
_OF_THE_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


def unreadable(where: str, error: BaseException, remedy: str = "replace or remove it") -> str:
    """Turn a library's exception into the one-line message of an `InputError`."""
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(". ") if lines else type(error).__name__
    if may_pass(error):
        remedy = "make it readable, and call again"
    return f"{where}: cannot be read ({reason}); {remedy}"


def may_pass(error: BaseException | None) -> bool:
    """Whether a disk, network or permission failed, not the content: then the same file may be readable tomorrow."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own OSErrors have no number
            return error.errno not in _OF_THE_PATH
        error = error.__cause__
    return False


@contextmanager
def reading(where: str, remedy: str = "replace or remove it") -> Iterator[None]:
    """Turn whatever is raised inside into an `InputError`: over damaged bytes, libraries raise errors of any kind."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(unreadable(where, error, remedy)) from error


@contextmanager
def in_one_line() -> Iterator[None]:
    """Make the message of an `InputError` harmless, whatever the names in it: around everything that readers do."""
    try:
        yield
    except InputError as error:
        line = printable(str(error))
        cut = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
        error.args = (line if len(line) <= _LONGEST else cut,)
        raise
