"""Where the processes come from that compute runs: one server imports all that they need, and they are forked from it.

It imports while this process still does, so that a grid begins as soon as this process is ready. Where there is no
forking, as on Windows, each process imports by itself.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_IMPORTED = ["warmstart.grids.local_processes", "warmstart.runs.image_task"]


def worker_context() -> Any:
    """The context that workers are started in.

    Returns:
        One of `multiprocessing`'s; tensors travel as shared memory, so that there is one copy of the data.
    """
    context: Any = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(_IMPORTED)
    return context


def start_importing() -> None:
    """Let the server start now, whether or not there will be workers; it ends with this process."""
    worker_context()
    if _METHOD == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()
