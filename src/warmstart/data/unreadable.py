"""The message that something cannot be read, whichever library failed."""

from __future__ import annotations


def unreadable(where: str, error: BaseException, remedy: str = "replace or remove it") -> str:
    """Turn a library's exception into the one-line message of an `InputError`."""
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(". ") if lines else type(error).__name__
    return f"{where}: cannot be read ({reason}); {remedy}"
