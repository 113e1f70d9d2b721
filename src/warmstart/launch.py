"""How many processes were started together, and the cores that this one may use: known before torch is there."""

from __future__ import annotations

import atexit
import os
import platform
import threading
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """What the CPU calls itself, such as ``AMD EPYC 9654 96-Core Processor``; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def launched_processes() -> int:
    """How many processes were started together to train each run; 1 in a process that was started by itself."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes and shows results: of several that were started together only the first does."""
    return os.environ.get("RANK", "0") == "0"


def end_with_launcher() -> None:
    """End this process as soon as the launcher that started it has ended, even by a kill.

    A launcher that is killed cannot tell its processes, which would train on and keep the folder locked. This is for
    `torchrun` and Accelerate, which uses it: Slurm ends its own processes, and a shell may close.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    over = threading.Event()
    watch = threading.Thread(target=_end_with, args=(os.getppid(), over), daemon=True)
    watch.start()

    def stop_watching() -> None:
        over.set()
        watch.join()

    atexit.register(stop_watching)  # awake while the interpreter is taken apart, it would abort the process


def _end_with(parent: int, over: threading.Event) -> None:
    while os.getppid() == parent and _may_be_launcher(parent):
        if over.wait(1):
            return
    os._exit(1)


def _may_be_launcher(process: int) -> bool:
    """False of what adopts processes whose launcher ended before they could ask who it is: they would wait for ever."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # no Linux, or not to be read
        return process != 1
    return any(word in command for word in (b"python", b"torchrun", b"accelerate"))
