"""The entry point of `warmstart`, which names the missing package where the lab is not installed."""

from __future__ import annotations

import gc
import sys

from warmstart.cli.ending import fail
from warmstart.cli.output import lost_output, use_lasting_streams
from warmstart.interruption import answer_signals, end_work


def main() -> None:
    """Run the command line and exit."""
    answer_signals()  # before all that takes a while
    use_lasting_streams()
    try:
        from warmstart.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "warmstart":
            raise
        sys.exit(fail(f"the command line needs {error.name}: pip install 'warmstart[lab]'", 2))
    code = run(sys.argv[1:])
    end_work(code)
    if (lost := lost_output()) and code == 0:
        code = fail(f"the work is done, but not all of the output could be written: {lost.strerror}", 1)
    gc.freeze()  # else Python looks through all that was imported once more: a quarter of a second
    sys.exit(code)
