"""How a command ends that does not end well: one line on stderr, and an exit code."""

from __future__ import annotations

import sys


def fail(message: str, code: int) -> int:
    """Print an error as one line.

    Args:
        message: What went wrong, and what to do.
        code: The exit code.

    Returns:
        The exit code.
    """
    print(f"warmstart: {' '.join(message.split())}", file=sys.stderr)
    return code
