"""The command line. Exit codes: 0 done, 1 the work failed, 2 the input was wrong, 130 interrupted."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit."""
    try:
        from warmstart.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "warmstart":
            raise
        sys.exit(_fail(f"the command line needs {error.name}: pip install 'warmstart[lab]'", 2))
    except KeyboardInterrupt:  # imports take seconds
        sys.exit(_fail("stopped before anything began", 130))
    sys.exit(run(sys.argv[1:]))


def _fail(message: str, code: int) -> int:
    """Print an error as one line."""
    print(f"warmstart: {' '.join(message.split())}", file=sys.stderr)
    return code
