"""The elements of a parameter that belong to units: read and written in the parameter's own memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """The elements of one parameter or buffer that belong to the units of a layer."""

    name: str
    """As in ``model.named_parameters()`` or ``model.named_buffers()``."""
    dims: tuple[int, ...]
    """The dimensions along which units lie; of the others a unit has all indices, but for `ranges`."""
    at: Tensor
    """(units, slots, dims): the indices; -1 where a unit has fewer slots than others."""
    ranges: tuple[tuple[int, int, int], ...] = ()
    """(dimension, first index, number of indices) of other dimensions that are not taken whole."""

    def of(self, tensor: Tensor, units: Tensor | None = None) -> Tensor:
        """Read the units' elements.

        Args:
            tensor: The parameter, or any tensor of its shape: its gradient, an optimizer's moment.
            units: Which units, (n,); all of them if not given, then without a copy where that can be.

        Returns:
            (n, slots, *other dimensions); 0 in slots that a unit does not have.
        """
        view = self._view(tensor)
        if units is None and self._first is not None:
            count, slots = self.at.shape[:2]
            whole: Tensor = view.narrow(0, self._first, count * slots).unflatten(0, (count, slots))
            return whole
        at = self.at if units is None else self.at[units.to(self.at.device)]
        at = at.to(tensor.device)
        values: Tensor = view[at.unbind(-1)]
        if self._ragged:
            missing = (at[..., 0] < 0).reshape(*at.shape[:2], *[1] * (values.dim() - 2))
            values = values.masked_fill(missing, 0)
        return values

    @torch.no_grad()
    def fill_(self, tensor: Tensor, units: Tensor, value: float) -> None:
        """Set the units' elements, in place.

        Args:
            tensor: The parameter, or any tensor of its shape.
            units: Which units, (n,).
            value: The value.
        """
        at = self._present(units, tensor.device)
        self._view(tensor).index_put_(at, torch.full((), value, dtype=tensor.dtype, device=tensor.device))

    @torch.no_grad()
    def copy_(self, tensor: Tensor, units: Tensor, values: Tensor) -> None:
        """Write the units' elements, in place.

        Args:
            tensor: The parameter, or any tensor of its shape.
            units: Which units, (n,).
            values: (n, slots, *other dimensions), as `of` returns them, or what broadcasts to it.
        """
        view = self._view(tensor)
        at = self.at[units.to(self.at.device)].to(tensor.device)
        values = values.to(tensor).expand(*at.shape[:2], *view.shape[len(self.dims) :])
        if self._ragged:
            there = at[..., 0] >= 0
            at, values = at[there], values[there]
        view.index_put_(at.unbind(-1), values)

    def _present(self, units: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        at = self.at[units.to(self.at.device)].to(device)
        return (at[at[..., 0] >= 0] if self._ragged else at).unbind(-1)

    def _view(self, tensor: Tensor) -> Tensor:
        """The tensor with the units' dimensions first: a view, so that writing to it writes to the tensor."""
        for dim, first, length in self.ranges:
            tensor = tensor.narrow(dim, first, length)
        return tensor.movedim(self.dims, tuple(range(len(self.dims))))

    @cached_property
    def _ragged(self) -> bool:
        return bool((self.at < 0).any())

    @cached_property
    def _first(self) -> int | None:
        """The first index if the units are contiguous along one dimension."""
        flat = self.at.flatten()
        regular = len(self.dims) == 1 and torch.equal(flat, torch.arange(len(flat), device=flat.device) + flat[0])
        return int(flat[0]) if regular else None
