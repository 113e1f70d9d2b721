"""Which elements of which parameter a tensor in a forward pass is a view of: weights arrive transposed, split, cast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

Range = tuple[int, int, int]
"""A dimension, and the first and the number of its indices."""


def is_strided(tensor: Tensor) -> bool:
    """Whether a tensor has a storage that its views share; sparse and nested ones have none."""
    return tensor.layout == torch.strided and not tensor.is_nested


def storage_key(tensor: Tensor) -> int:
    """A number that all views of a strided tensor share, for as long as their storage lives."""
    return int(tensor.untyped_storage()._cdata)


@dataclass(frozen=True)
class _Grid:
    """How indices lie in a storage."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: Tensor) -> _Grid:
        """A tensor's own grid."""
        return _Grid(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    def positions(self, index: Tensor) -> Tensor:
        """Positions in the storage of indices (..., dims)."""
        return self.offset + (index * torch.tensor(self.strides, dtype=torch.long)).sum(-1)

    def index(self, positions: Tensor) -> Tensor:
        """Indices (..., dims) of positions in the storage."""
        found = torch.zeros(*positions.shape, len(self.shape), dtype=torch.long)
        rest = positions - self.offset
        for dim in sorted(range(len(self.shape)), key=lambda d: -self.strides[d]):
            if self.shape[dim] > 1 and self.strides[dim] > 0:
                found[..., dim] = rest // self.strides[dim]
                rest = rest % self.strides[dim]
        return found


@dataclass(frozen=True)
class Slots:
    """Elements of a parameter, by slot: of `dims` those at `at`, of all other dimensions those in `ranges`."""

    name: str
    dims: tuple[int, ...]
    at: Tensor
    """(slots, elements in a slot, dims)."""
    ranges: tuple[Range, ...]
    """Of the other dimensions those that are not taken whole."""


@dataclass(frozen=True)
class View:
    """A tensor that shows elements of a parameter or buffer."""

    name: str
    parameter: Tensor
    grid: _Grid
    copies: tuple[tuple[_Grid, _Grid], ...] = ()
    """The casts and copies on the way to it, the last one first: the grids of the copy and of its source."""

    def index(self, index: Tensor) -> Tensor:
        """From indices (..., dims) in the tensor to indices (..., dims) in the parameter."""
        positions = self.grid.positions(index)
        for copy, source in self.copies:
            positions = source.positions(copy.index(positions))
        return _Grid.of(self.parameter).index(positions)

    def axes(self) -> tuple[int, ...]:
        """The dimensions along which it shows different elements: neither of size 1 nor expanded."""
        shape = self.grid.shape
        return tuple(d for d, size in enumerate(shape) if size > 1 and self.grid.strides[d] != 0)

    def slots(self, dims: Sequence[int], at: Tensor) -> Slots:
        """The parameter's elements at some indices of some of the tensor's dimensions, and all indices of the others.

        ``at`` is (slots, elements in a slot, dims).

        Returns:
            The same elements, named in the parameter.
        """
        shape = self.grid.shape
        index = torch.zeros(*at.shape[:2], len(shape), dtype=torch.long)
        for number, dim in enumerate(dims):
            index[..., dim] = at[..., number]
        taken = self._varies(self.index(index))
        free: dict[int, tuple[int, int]] = {}
        for axis in sorted(set(self.axes()) - set(dims), key=lambda d: -self.grid.strides[d]):
            line = torch.zeros(shape[axis], len(shape), dtype=torch.long)
            line[:, axis] = torch.arange(shape[axis])
            there = self.index(line)
            moved = self._varies(there)
            firsts = [int(there[:, d].min()) for d in moved]
            lengths = [int(there[:, d].max()) + 1 - first for d, first in zip(moved, firsts, strict=True)]
            if math.prod(lengths) == shape[axis] and not moved & (taken | free.keys()):
                free |= dict(zip(moved, zip(firsts, lengths, strict=True), strict=True))
            else:  # it is interleaved with the others: list each of its indices
                before = index.size(1)
                index = index.repeat_interleave(shape[axis], 1)
                index[..., axis] = torch.arange(shape[axis]).repeat(before)
                taken |= moved
        return self._named(index, free)

    def _named(self, index: Tensor, free: dict[int, tuple[int, int]]) -> Slots:
        """Slots of these indices of the tensor, where the parameter's dimensions in ``free`` are ranges."""
        size = self.parameter.shape
        dims = tuple(d for d in range(len(size)) if d not in free and size[d] > 1)
        dims = dims or tuple(d for d in range(len(size)) if d not in free)[:1]
        ranges = tuple((d, *free[d]) for d in sorted(free) if free[d] != (0, size[d]))
        return Slots(self.name, dims, self.index(index)[..., list(dims)], ranges)

    @staticmethod
    def _varies(index: Tensor) -> set[int]:
        """The parameter's dimensions in which indices differ."""
        flat = index.flatten(0, -2)
        return {d for d in range(index.size(-1)) if bool((flat[:, d] != flat[0, d]).any())}


class Views:
    """The parameters and buffers of a network, found by their storage."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = dict(model.named_parameters())
        self._owned: dict[int, list[tuple[str, Tensor]]] = {}
        self._copies: dict[int, tuple[StorageWeakRef, View, _Grid]] = {}
        for name, tensor in [*self.parameters.items(), *model.named_buffers()]:
            if is_strided(tensor):
                self._owned.setdefault(storage_key(tensor), []).append((name, tensor))

    def find(self, tensor: Tensor) -> View | None:
        """The parameter or buffer that a tensor shows, or None."""
        if not is_strided(tensor) or tensor.numel() == 0:
            return None
        grid = _Grid.of(tensor)
        for name, owner in self._owned.get(storage_key(tensor), ()):
            if owner.storage_offset() <= grid.offset < owner.storage_offset() + owner.numel():
                return View(name, owner, grid)
        if storage_key(tensor) in self._copies:
            _, source, laid = self._copies[storage_key(tensor)]
            return replace(source, grid=grid, copies=((laid, source.grid), *source.copies))
        return None

    def copied(self, source: Tensor, copy: Tensor) -> None:
        """Note that ``copy`` holds the elements of ``source``, in another type or order.

        It has the same shape, or repeats a vector. Nothing happens if the source shows no parameter.
        """
        view = self.find(source)
        if view is None or not is_strided(copy):
            return
        laid = _Grid.of(copy)
        if copy.shape != source.shape:
            times, size = copy.numel() // source.numel(), source.numel()
            laid = _Grid((times, size), (size, 1), 0)
            view = replace(view, grid=_Grid((times, size), (0, *source.stride()), int(source.storage_offset())))
        storage = copy.untyped_storage()
        self._copies[storage._cdata] = (StorageWeakRef(storage), view, laid)
