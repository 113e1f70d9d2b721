"""The one line that says that something cannot be read, whatever library met it."""

from __future__ import annotations


def unreadable(where: str, error: BaseException, remedy: str = "replace or remove it") -> str:
    """Turn a library's exception into the message of an `InputError`.

    Args:
        where: The file, archive member or table row.
        error: What the library raised; only the first line of its message is kept.
        remedy: What the user can do.

    Returns:
        One line.
    """
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(". ") if lines else type(error).__name__
    return f"{where}: cannot be read ({reason}); {remedy}"
