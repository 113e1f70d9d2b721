"""What this machine computes with: its cores and accelerators."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from warmstart.errors import InputError, WorkFailedError


def find_device(name: str) -> torch.device:
    """Find a device by name; ``auto`` is the accelerator that is there, else the CPU. InputError if it is not there."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        here.append("mps")
    mine = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # of several processes that were started together
    if name == "auto":
        return torch.device(mine if mine in here else here[-1])
    wanted = mine if name == "cuda" else name
    if wanted not in here:
        raise InputError(f"device '{name}' is not there; this machine has {', '.join(here)} (or say auto)")
    return torch.device(wanted)


def too_little_memory(error: torch.OutOfMemoryError) -> str:
    """Say in one line what a GPU lacks memory for, and what helps."""
    held = max((torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())), default=0)
    asked = str(error).partition("Tried to allocate ")[2].partition(". ")[0]
    return (
        f"the GPU has too little memory free: {held / 2**30:.1f} GiB were in use here and {asked or 'more'} was asked "
        "for; use --jobs 1, or for another --out --precision bf16, a smaller --batch-size or --model, or --device cpu"
    )


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute with this number of threads, then with the earlier one again."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_sufficing(what: object) -> Iterator[None]:
    """Report a GPU's lack of memory as a `WorkFailedError`, in one line that begins with what was computed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise WorkFailedError(f"{what}: {too_little_memory(error)}") from error
