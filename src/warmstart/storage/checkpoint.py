"""Checkpoints: network, optimizer and notes in one safetensors file, without pickle, all or nothing.

The network's tensors are called `model.<name>`, so that any tool that reads safetensors finds the weights; the
optimizer's `optimizer.<parameter>.<name>`; further ones `tensors.<name>`. What is not a tensor is JSON in the file's
header, with its own checksum and one for each tensor.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import DamagedError, OtherVersionError
from warmstart.storage.atomic import write_bytes
from warmstart.storage.packing import TensorTable, pack, unpack

_KEY, _CHECKSUM_KEY = "warmstart", "warmstart.crc32"
_VERSION = 2


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
    check: Callable[[], None] | None = None,
) -> None:
    """Write a checkpoint, or leave the old one untouched.

    Args:
        path: The file; its folder must exist.
        model: The network or its state dict. Tied weights are stored once.
        optimizer: Its state is stored: tensors bit for bit, strides included.
        metadata: The caller's notes, anything that JSON can hold.
        tensors: Further tensors, such as the states of random generators.
        check: Called right before the new file takes the old one's place; it may raise.
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
    # Through memory: safetensors' own writer is not atomic, and reports a full disk as an error of its own.
    text = json.dumps(header)
    notes = {"format": "pt", _KEY: text, _CHECKSUM_KEY: str(zlib.crc32(text.encode()))}
    write_bytes(path, to_safetensors(table.tensors, notes), check=check)


def load(path: Path) -> Checkpoint:
    """Read a whole checkpoint into memory, so that its file may be replaced or removed.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        DamagedError: If the file is missing, damaged, or not a checkpoint.
        OtherVersionError: If it is of another format.
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
    """The metadata that was given to `save`; fast, however large the file is."""
    with _open(path) as (_, header):
        metadata: dict[str, Any] = header["metadata"]
        return metadata


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names in the file begin with ``prefix``, such as `model.`, by the rest of their names.

    One that has several names is stored under the first.
    """
    with _open(path) as (file, header):
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # not a dict
        return {name.removeprefix(prefix): _read(file, header, name) for name in names}


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a checkpoint and read its header; DamagedError says what is wrong with a file that is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            if _KEY not in notes:
                raise DamagedError(f"{path}: not a warmstart checkpoint; name a file that warmstart has saved")
            if notes.get(_CHECKSUM_KEY) != str(zlib.crc32(notes[_KEY].encode())):
                raise SafetensorError("the header has changed")
            header = json.loads(notes[_KEY])
            if header["version"] != _VERSION:
                raise OtherVersionError(
                    f"{path}: checkpoint of format {header['version']}, but this warmstart reads format {_VERSION}; "
                    "use the version of warmstart that wrote it"
                )
            if set(file.keys()) != set(header["checksums"]):
                raise SafetensorError("tensors are missing or added")
            yield file, header
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: no such checkpoint; check the path") from error
    except (SafetensorError, KeyError) as error:
        raise DamagedError(f"{path}: damaged checkpoint ({error}); delete it to compute it again") from error


def _read(file: Any, header: Mapping[str, Any], name: str) -> Tensor:
    """Copy a tensor out of the mapped file, into memory that is aligned and stays when the file is closed."""
    tensor: Tensor = file.get_tensor(name).clone()
    if _checksum(tensor) != header["checksums"][name]:
        raise SafetensorError(f"the content of {name} has changed")
    return tensor


def _checksum(tensor: Tensor) -> int:
    """Of type, shape and content: the file's header says type and shape, and the same bytes make other numbers."""
    kind = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, kind)
