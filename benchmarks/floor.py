"""The shortest time in which a device could do a training step: its arithmetic and its traffic, at measured rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def seconds_of(work: Callable[[], Any], device: torch.device, rounds: int = 5) -> float:
    """The shortest of some runs, after one that does not count.

    Args:
        work: What is timed.
        device: Where it computes; waited for.
        rounds: How many runs.

    Returns:
        Seconds.
    """
    taken = []
    for _ in range(rounds + 1):
        began = finished(device)
        work()
        taken.append(finished(device) - began)
    return min(taken[1:])


def finished(device: torch.device) -> float:
    """The time when the device has nothing left to do.

    Args:
        device: What is waited for.

    Returns:
        Seconds on a clock.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Rates:
    """What a device does at its best."""

    flops: float
    """Operations a second in a large matrix product, a multiplication and an addition being two."""
    bandwidth: float
    """Bytes a second in a large copy, read and written."""


def measured_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure what the device does at its best.

    Args:
        device: Which device.
        dtype: Of the matrices; TF32 is as it is switched.

    Returns:
        The rates.
    """
    size, length = (8192, 2**28) if device.type == "cuda" else (1024, 2**24)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    source, target = torch.ones(2, length, device=device)
    return Rates(
        flops=2 * size**3 / seconds_of(lambda: left @ right, device),
        bandwidth=2 * 4 * length / seconds_of(lambda: target.copy_(source), device),
    )


class _Traffic(TorchDispatchMode):
    """Bytes that operations read and write, each as if nothing were left in a cache."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's has no types
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation, and count."""
        result = func(*args, **(kwargs or {}))
        if not (func.is_view or "empty" in str(func)):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


@dataclass(frozen=True)
class Work:
    """What a piece of work asks of a device."""

    flops: int
    bytes: int
    """Of its operations as they are, unfused."""

    def seconds(self, rates: Rates) -> tuple[float, float]:
        """The time for arithmetic alone and for traffic alone; neither can be undercut.

        Args:
            rates: The device's.

        Returns:
            Seconds for each.
        """
        return self.flops / rates.flops, self.bytes / rates.bandwidth


def work_of(work: Callable[[], Any]) -> Work:
    """Count the operations of a piece of work, while doing it.

    Args:
        work: What is counted.

    Returns:
        Its arithmetic and traffic.
    """
    with _Traffic() as traffic, FlopCounterMode(display=False) as flops:
        work()
    return Work(flops.get_total_flops(), traffic.bytes)
