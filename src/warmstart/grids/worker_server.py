"""How worker processes start: one server imports what they need, and they are forked from it.

It imports while this process still does, so that a grid begins as soon as this process is ready. Without fork, as on
Windows, each worker imports by itself.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_IMPORTED = ["warmstart.grids.local_processes", "warmstart.runs.image_task"]


def worker_context() -> Any:
    """The `multiprocessing` context of workers; tensors travel as shared memory, so that the data is held once."""
    context: Any = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(_IMPORTED)
    return context


def start_importing() -> None:
    """Start the server now, whether or not workers will be needed; it ends with this process."""
    worker_context()
    if _METHOD == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()
