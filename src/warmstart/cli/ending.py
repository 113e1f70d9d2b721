"""How a failed command ends: one line on stderr, and an exit code."""

from __future__ import annotations

import sys

from warmstart.wording import one_line


def fail(message: str, code: int) -> int:
    """Print an error as one line on stderr; returns the exit code."""
    print(f"warmstart: {one_line(' '.join(message.split()))}", file=sys.stderr)
    return code
