"""How worker processes start: one server imports what they need, and they are forked from it.

It imports while this process still does, so that a grid begins as soon as this process is ready. Without fork, as on
Windows, each worker imports by itself.
"""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def worker_context() -> Any:
    """The `multiprocessing` context of workers; tensors travel as shared memory, so that the data is held once."""
    context: Any = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(["warmstart.grids.worker_imports"])
    return context


_started = False


def start_importing() -> None:
    """Start the server now, whether or not workers will be needed; it ends with this process."""
    global _started
    worker_context()
    if _METHOD == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        resource_tracker.ensure_running()  # here, since starting it unblocks the signal
        # The server and its workers inherit the mask: Ctrl-C in a terminal is for this process, which ends them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _started = True


def workers_cost_nothing() -> bool:
    """Whether the server was started early, so that its imports are done by now, or nearly."""
    return _started
