"""Checkpoints: network, optimizer and notes in one safetensors file, without pickle, all or nothing.

The network's tensors are called `model.<name>`, so that any tool that reads safetensors finds the weights; the
optimizer's `optimizer.<parameter>.<name>`; further ones `tensors.<name>`. What is no tensor lies as JSON in the
file's header, with a checksum for each tensor.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.storage.atomic import write_bytes
from warmstart.storage.packing import TensorTable, pack, unpack

_KEY, _CHECKSUM_KEY = "warmstart", "warmstart.crc32"
_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, on the CPU, ready for `load_state_dict`."""

    model_state: dict[str, Any]
    optimizer_state: dict[str, Any] | None
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def save(
    path: Path,
    *,
    model: nn.Module | Mapping[str, Any],
    optimizer: Optimizer | None = None,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint, or leave the old one untouched.

    Args:
        path: The file; its folder must exist.
        model: The network or its state dict. Tied weights are stored once.
        optimizer: Its state is stored: tensors bit for bit, strides included.
        metadata: Notes of the caller's, anything that JSON can hold.
        tensors: Further tensors, such as the states of random generators.
    """
    table = TensorTable()
    state = optimizer.state_dict() if optimizer is not None else None
    header = {
        "version": _VERSION,
        "metadata": dict(metadata or {}),
        "model": pack(model.state_dict() if isinstance(model, nn.Module) else model, "model", table),
        "optimizer": state
        and {
            "state": pack(state["state"], "optimizer", table),
            "param_groups": pack(state["param_groups"], "optimizer.param_groups", table),
        },
        "tensors": pack(tensors or {}, "tensors", table),
    }
    header["checksums"] = {name: _checksum(tensor) for name, tensor in table.tensors.items()}
    # Through memory: safetensors' own writer is not atomic, and hides a full disk behind an error of its own.
    text = json.dumps(header)
    notes = {"format": "pt", _KEY: text, _CHECKSUM_KEY: str(zlib.crc32(text.encode()))}
    write_bytes(path, to_safetensors(table.tensors, notes))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: The file.

    Returns:
        All of it, in memory: the file may be replaced or removed.

    Raises:
        InputError: If the file is missing, damaged, or not a checkpoint.
    """
    with _open(path) as (file, header):
        tensors = {name: _read(file, header, name) for name in file.keys()}  # noqa: SIM118  # not a dict
        return Checkpoint(
            model_state=unpack(header["model"], tensors),
            optimizer_state=unpack(header["optimizer"], tensors),
            metadata=header["metadata"],
            tensors=unpack(header["tensors"], tensors),
        )


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the caller's notes alone; fast, however large the file is.

    Args:
        path: The file.

    Returns:
        The metadata given to `save`.

    Raises:
        InputError: If the file is missing, cut short, or not a checkpoint.
    """
    with _open(path) as (_, header):
        metadata: dict[str, Any] = header["metadata"]
        return metadata


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Read some of the tensors alone.

    Args:
        path: The file.
        prefix: What their names in the file begin with: `model.`, `tensors.`, `optimizer.0.`, ...

    Returns:
        The tensors by the rest of their names; one that goes by several names is there under the first.

    Raises:
        InputError: If the file is missing, damaged where it was read, or not a checkpoint.
    """
    with _open(path) as (file, header):
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # not a dict
        return {name.removeprefix(prefix): _read(file, header, name) for name in names}


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a checkpoint and read its header, telling what is wrong with a file that is none."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            if _KEY not in notes:
                raise InputError(f"{path}: not a warmstart checkpoint; name a file that warmstart has saved")
            if notes.get(_CHECKSUM_KEY) != str(zlib.crc32(notes[_KEY].encode())):
                raise SafetensorError("the header has changed")
            header = json.loads(notes[_KEY])
            if header["version"] != _VERSION:
                raise InputError(
                    f"{path}: checkpoint of format {header['version']}, and this warmstart reads {_VERSION}; "
                    "use the version of warmstart that wrote it"
                )
            yield file, header
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint; check the path") from error
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); delete it, and its work is done again") from error


def _read(file: Any, header: Mapping[str, Any], name: str) -> Tensor:
    """Copy a tensor out of the mapped file, into memory that is aligned and outlives it."""
    tensor: Tensor = file.get_tensor(name).clone()
    if _checksum(tensor) != header["checksums"][name]:
        raise SafetensorError(f"the content of {name} has changed")
    return tensor


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)
