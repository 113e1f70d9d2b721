"""The entry point of `warmstart`, which names the missing package where the lab is not installed."""

from __future__ import annotations

import gc
import sys

from warmstart.cli.ending import fail


def main() -> None:
    """Run the command line and exit."""
    try:
        from warmstart.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "warmstart":
            raise
        sys.exit(fail(f"the command line needs {error.name}: pip install 'warmstart[lab]'", 2))
    except KeyboardInterrupt:  # imports take a while
        sys.exit(fail("stopped before anything began", 130))
    code = run(sys.argv[1:])
    gc.freeze()  # else Python looks through all that was imported once more: a quarter of a second
    sys.exit(code)
