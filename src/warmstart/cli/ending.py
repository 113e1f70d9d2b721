"""How a failed command ends: one line on stderr, and an exit code."""

from __future__ import annotations

import sys


def fail(message: str, code: int) -> int:
    """Print an error as one line on stderr; returns the exit code."""
    print(f"warmstart: {' '.join(message.split())}", file=sys.stderr)
    return code
