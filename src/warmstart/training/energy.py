"""The energy that a device takes up, where it is counted: by NVIDIA's driver, and by Linux for Intel's and AMD's CPUs.

A counter is that of the whole device. Where several runs share it, each is given an equal part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux has the counters of processor packages (RAPL), in microjoules; often for its administrator only."""

Counter = tuple[Callable[[], float], float]
"""What reads joules, and the number at which it begins anew."""

_sharing = 1


def share_device(runs: int) -> None:
    """Say how many runs at a time share the device that this process trains on."""
    global _sharing
    _sharing = runs


class EnergyMeter:
    """Reads what has been taken up between two calls."""

    def __init__(self, device: torch.device) -> None:
        """Begin to count."""
        self._counters = _of_gpu(device) if device.type == "cuda" else _of_processor() if device.type == "cpu" else []
        self._last = self._read()

    def since_last(self) -> float:
        """Joules since the last call, or since the beginning; NaN where nothing counts them."""
        before, self._last = self._last, self._read()
        if not self._counters or before is None or self._last is None:
            return math.nan
        ends = (end for _, end in self._counters)
        return sum((now - then) % end for now, then, end in zip(self._last, before, ends, strict=True)) / _sharing

    def _read(self) -> Sequence[float] | None:
        try:
            return [read() for read, _ in self._counters]
        except Exception:  # of the driver, in forms of its own; measuring never ends a training
            return None


def _of_processor() -> list[Counter]:
    counters: list[Counter] = []
    with suppress(OSError, ValueError):
        for package in sorted(POWERCAP.glob("intel-rapl:*")):  # AMD's are called so, too
            if package.name.count(":") == 1:  # the others are parts of packages
                read = partial(_joules_in, package / "energy_uj")
                read()  # allowed?
                counters.append((read, _joules_in(package / "max_energy_range_uj")))
    return counters


def _joules_in(file: Path) -> float:
    return float(file.read_text()) / 1e6


def _of_gpu(device: torch.device) -> list[Counter]:
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no driver, a GPU that does not count, or one that is a part of another
        return []
    return [(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, math.inf)]
