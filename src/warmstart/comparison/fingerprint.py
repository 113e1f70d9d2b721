"""Fingerprints of networks and of streams of data sets: short hashes that config.yaml keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

SAMPLE = 32
"""How many examples of each stage are hashed, the newest."""


def model_fingerprint(model: nn.Module) -> str:
    """Hash the names, shapes and types of a network's weights and buffers: 16 hexadecimal digits."""
    state = [(name, tuple(value.shape), str(value.dtype)) for name, value in sorted(_tensors_of(model).items())]
    return _short(hashlib.sha256(repr(state).encode()))


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def stream_fingerprint(parts: Sequence[Dataset[Any]]) -> str:
    """Hash the length of each stage and its newest examples.

    Examples that differ when they are read again, such as images with random crops drawn by NumPy, say nothing about
    the data: of such a stream only the lengths count.

    Returns:
        16 hexadecimal digits.
    """
    first, again = (_hash_of(parts) for _ in range(2))
    lengths = [len(part) for part in parts]  # type: ignore[arg-type]  # data sets with a length
    return first if first == again else _short(hashlib.sha256(repr(lengths).encode()))


def _hash_of(parts: Sequence[Dataset[Any]]) -> str:
    found = hashlib.sha256()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for part in parts:
            length = len(part)  # type: ignore[arg-type]  # a data set with a length
            found.update(f"stage of {length}".encode())
            for index in range(max(0, length - SAMPLE), length):
                _add(found, part[index])
    return _short(found)


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        found.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        found.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            found.update(f"{key}:".encode())
            _add(found, item)
    elif isinstance(value, (list, tuple)):
        found.update(f"{len(value)} items".encode())
        for item in value:
            _add(found, item)
    elif isinstance(value, np.ndarray) and value.dtype == object:
        _add(found, value.tolist())
    elif hasattr(value, "tobytes"):  # NumPy's arrays and numbers, PIL's images
        found.update(value.tobytes())
    elif isinstance(value, (str, bytes, int, float, bool, type(None))):
        found.update(repr(value).encode())
    else:  # an object of the user's own, whose repr may be its address
        found.update(type(value).__qualname__.encode())


def _short(found: Any) -> str:
    digest: str = found.hexdigest()
    return digest[:16]
