"""Nested Python state as JSON beside a flat table of tensors, and back again exactly.

Optimizer states are dicts of dicts with integer keys, tuples and tensors; safetensors holds named tensors and text.
A tensor becomes `{"$tensor": name}`, a tuple `{"$tuple": [...]}`, a dict with other keys than strings
`{"$dict": [[key, value], ...]}`; the rest is JSON already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_TENSOR, _TUPLE, _DICT = "$tensor", "$tuple", "$dict"


class TensorTable:
    """Tensors by name, on the CPU and contiguous; views of the same memory are stored once, under the first name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[object, ...], str] = {}
        self._storages: set[int] = set()
        self._originals: list[Tensor] = []  # kept alive, so that no address is used twice

    def add(self, tensor: Tensor, name: str) -> dict[str, Any]:
        """Store a tensor; the mark that stands for it in JSON is its name and, if they are unusual, its strides."""
        view = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
        if view not in self._names:
            while name in self.tensors:  # {"a": {"b": x}, "a.b": y}
                name += "'"
            self._names[view] = name
            self.tensors[name] = self._own(tensor)
            self._originals.append(tensor)
        mark: dict[str, Any] = {_TENSOR: self._names[view]}
        # empty_like keeps strides where they are a permutation: channels_last yes, an expanded dimension no.
        if not tensor.is_contiguous() and torch.empty_like(tensor).stride() == tensor.stride():
            mark["stride"] = list(tensor.stride())
        return mark

    def _own(self, tensor: Tensor) -> Tensor:
        """A contiguous tensor on the CPU that shares no memory with the table's others; safetensors wants that."""
        storage = tensor.untyped_storage().data_ptr()
        owned = tensor.detach().cpu().contiguous()
        if storage in self._storages and owned.data_ptr() == tensor.data_ptr():
            owned = owned.clone()
        self._storages.add(storage)
        return owned


def pack(value: object, name: str, table: TensorTable) -> Any:
    """Turn nested dicts, lists, tuples, tensors and plain values into JSON; tensors go to the table, named by path."""
    match value:
        case Tensor():
            return table.add(value, name)
        case Mapping():
            items = {key: pack(item, f"{name}.{key}", table) for key, item in value.items()}
            if all(isinstance(key, str) and not key.startswith("$") for key in items):
                return items
            return {_DICT: [[pack(key, name, table), item] for key, item in items.items()]}
        case list() | tuple():
            packed = [pack(item, f"{name}.{index}", table) for index, item in enumerate(value)]
            return packed if isinstance(value, list) else {_TUPLE: packed}
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"{name}: a {type(value).__name__} cannot be stored; use tensors, numbers or text")


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`: equal in type, strides and every bit, except that dicts of every kind become plain ones."""
    match packed:
        case {"$tensor": name}:
            tensor = tensors[name]
            if "stride" not in packed:
                return tensor
            return torch.empty_strided(tensor.shape, packed["stride"], dtype=tensor.dtype).copy_(tensor)
        case {"$tuple": items}:
            return tuple(unpack(item, tensors) for item in items)
        case {"$dict": items}:
            return {unpack(key, tensors): unpack(item, tensors) for key, item in items}
        case dict():
            return {key: unpack(item, tensors) for key, item in packed.items()}
        case list():
            return [unpack(item, tensors) for item in packed]
        case _:
            return packed
