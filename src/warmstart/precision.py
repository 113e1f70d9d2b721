"""Full fp32 where a result needs it: no autocast, no TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from warmstart.undo import afterwards

_Switch = tuple[Callable[[], Any], Callable[[Any], None], Any]
"""What reads a setting, what sets it, and the value to set."""


@contextmanager
def in_fp32(device_type: str) -> Iterator[None]:
    """Compute without autocast and TF32, and restore both; ``device_type`` is such as ``cpu`` or ``cuda``."""
    autocast = partial(torch.set_autocast_enabled, device_type)
    with rounding_to_tf32(False), afterwards(partial(autocast, torch.is_autocast_enabled(device_type))):
        autocast(False)
        yield


@contextmanager
def rounding_to_tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions of fp32 numbers, and restore the earlier setting."""
    backends: Any = torch.backends
    cudnn = backends.cudnn
    switches: list[_Switch] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high" if allowed else "highest"),
        (partial(getattr, cudnn, "allow_tf32"), partial(setattr, cudnn, "allow_tf32"), allowed),
    ]
    if hasattr(cudnn, "conv"):  # since PyTorch 2.9; once these are set, reading the two above may raise
        switches += [
            (
                partial(getattr, x, "fp32_precision"),
                partial(setattr, x, "fp32_precision"),
                "tf32" if allowed else "ieee",
            )
            for x in (backends.cuda.matmul, backends.mkldnn.matmul, cudnn.conv, cudnn.rnn)
        ]
    before: list[tuple[Callable[[Any], None], Any]] = []
    for read, write, _ in switches:
        with suppress(RuntimeError):
            before.append((write, read()))

    def put_back() -> None:
        for write, value in before:
            write(value)

    with afterwards(put_back):
        for _, write, value in switches:
            write(value)
        yield
