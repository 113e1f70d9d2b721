"""How many batches matter, cuts of examples into batches, and operations on one batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from warmstart.errors import InputError, number, within

BATCH = 1000
"""Examples a batch where batches are cut anew and nobody sets a size: the paper's."""


def batches_that_matter(alpha: float, tolerance: float) -> int | None:
    """How many of the last batches an exponential moving average depends on; None for all.

    An average with rate alpha gives the batch k places from the end the weight alpha (1-alpha)^k, so batches more
    than K back add at most (1-alpha)^K <= tolerance of the largest gradient.

    Returns:
        K = max(1, ceil(ln tolerance / ln(1-alpha))), or None if tolerance is 0.

    Raises:
        InputError: Unless alpha is in (0, 1] and tolerance in [0, 1).
    """
    within("alpha", alpha, 0 < number("alpha", alpha) <= 1, "above 0 and at most 1")
    within("tolerance", tolerance, 0 <= number("tolerance", tolerance) < 1, "at least 0 and below 1")
    if alpha == 1:
        return 1
    return None if tolerance == 0 else max(1, math.ceil(math.log(tolerance) / math.log1p(-alpha)))


@dataclass(frozen=True)
class _FromNewest(Sequence[Any]):
    """Items made from ranges of ``size`` indices that end at ``end``; only the first range may be short."""

    end: int
    size: int
    make: Callable[[range], Any]

    def __len__(self) -> int:
        return -(-self.end // self.size)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        stop = self.end - (len(self) - 1 - index % len(self)) * self.size
        return self.make(range(max(0, stop - self.size), stop))


def cut_from_newest(
    examples: int, batch_size: int, make: Callable[[range], Any] = lambda indices: indices
) -> Sequence[Any]:
    """Batches cut from the newest example backwards, oldest first, each made by ``make(indices)`` when asked for."""
    return _FromNewest(examples, batch_size, make)


@dataclass(frozen=True)
class Pieces:
    """A batch that was loaded in parts, each collated by itself."""

    parts: tuple[Any, ...]
    examples: tuple[int, ...]
    """Of each part: the indices that it was made of."""


def examples_in(batch: Any) -> int:
    """How many examples a batch holds.

    Returns:
        The number of indices that `Pieces` were made of; the length of its lists, where it is lists of one item an
        example, as of a detector's images and targets; else the first dimension of its first tensor that has one; 0
        where that cannot be told.
    """
    if isinstance(batch, Pieces):
        return sum(batch.examples)
    if lists := _lists_of_examples(batch):
        return len(lists[0])
    return next((tensor.shape[0] for tensor in tensors_in(batch) if tensor.dim() > 0), 0)


def _lists_of_examples(batch: Any) -> list[Sequence[Any]]:
    """The lists that a batch is made of, all as long as there are examples; none where its tensors have a dimension."""
    if isinstance(batch, Mapping):
        fields = list(batch.values())
    else:  # a tuple may be a packed sequence
        fields = list(batch) if isinstance(batch, (tuple, list)) and not hasattr(batch, "to") else []
    if not fields or not all(isinstance(field, (list, tuple)) for field in fields):
        return []
    inside = {tensor.shape[0] for tensor in tensors_in(batch) if tensor.dim() > 0}
    return fields if len(inside) > 1 and len({len(field) for field in fields}) == 1 else []


def is_empty(batch: Any) -> bool:
    """Whether a batch has tensors and none has elements; False without tensors, whose size is unknown."""
    if isinstance(batch, Pieces):
        return all(map(is_empty, batch.parts))
    sizes = [tensor.numel() for tensor in tensors_in(batch)]
    return bool(sizes) and max(sizes) == 0


def micro_batches(
    batch: Any, size: int | None, weight: Callable[[Any], float] = examples_in
) -> Iterator[tuple[Any, float]]:
    """Split a batch along the first dimension of its tensors.

    Args:
        batch: A nest of tensors that agree in their first dimension, those of no dimension apart, which each piece
            gets; or lists of one item an example; or `Pieces`, which stay what they are.
        size: Examples a piece; None, and as many as the batch has, leave it whole.
        weight: What the loss of a piece is a mean over: examples, or tokens.

    Yields:
        Each piece with its share of the batch; a loss that is a mean, weighted by the shares, sums to the whole
        batch's.

    Raises:
        InputError: If there are no tensors, or they disagree in their first dimension.
    """
    if not isinstance(batch, Pieces):
        count = examples_in(batch)
        if size is None or 0 < count <= size:
            yield batch, 1.0
            return
        whole = _lists_of_examples(batch) or all(tensor.shape[:1] in ((count,), ()) for tensor in tensors_in(batch))
        if count == 0 or not whole:
            raise InputError(
                "micro_batch_size needs batches whose tensors all have the examples as first dimension, or lists of "
                "one item an example: leave it out, or pass a DataLoader over the examples, which cuts by indices"
            )
        parts = slices(count, size)
        batch = Pieces(tuple(_piece(batch, part) for part in parts), tuple(part.stop - part.start for part in parts))
    weights = part_weights(batch, weight)
    total = sum(weights) or 1.0  # a share may weigh nothing
    for piece, part in zip(batch.parts, weights, strict=True):
        yield piece, part / total


def part_weights(batch: Pieces, weight: Callable[[Any], float] = examples_in) -> Sequence[float]:
    """What each part weighs: as many as it has examples, unless the loss is a mean over something else."""
    return batch.examples if weight is examples_in else [weight(part) for part in batch.parts]


def slices(count: int, size: int) -> list[slice]:
    """Parts of ``size`` examples of so many; the last may be short."""
    return [slice(start, min(count, start + size)) for start in range(0, count, size)]


def equal_slices(count: int, size: int) -> list[slice]:
    """Parts of nearly the same size, at most ``size`` except that each has two examples at least, if there are two."""
    parts = 1 if count <= max(2, size) else min(-(-count // size), count // 2)
    bounds = [count * i // parts for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def equal_parts(batch: Any, size: int | None) -> list[tuple[Any, int]]:
    """Split a batch for statistics over examples: parts of nearly the same size, and none of a single example.

    Args:
        batch: As for `micro_batches`.
        size: At most so many examples a part, except that a part has at least two; None leaves the batch whole.

    Returns:
        Each part with its number of examples, 1 where they cannot be counted.
    """
    if isinstance(batch, Pieces):
        return list(zip(batch.parts, batch.examples, strict=True))
    count = examples_in(batch)
    if size is None or count <= max(2, size):
        return [(batch, max(1, count))]
    return [(_piece(batch, part), part.stop - part.start) for part in equal_slices(count, size)]


def _piece(batch: Any, examples: slice) -> Any:
    """Some of a batch's examples."""
    if not _lists_of_examples(batch):
        return _map(batch, lambda tensor: tensor[examples] if tensor.dim() else tensor)
    if isinstance(batch, Mapping):
        return {key: field[examples] for key, field in batch.items()}
    return type(batch)(field[examples] for field in batch)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with every tensor, and every object that has a method ``to``, on the device.

    Returns:
        The same nest of mappings, tuples and lists; anything else in it is passed on unchanged.
    """

    def move(tensor: Tensor) -> Tensor:
        # Autograd refuses tensors that were made in inference mode, but not their copies.
        return (tensor.clone() if tensor.is_inference() else tensor).to(device, non_blocking=True)

    def move_whole(other: Any) -> Any:
        return other.to(device) if hasattr(other, "to") else other

    return _map(batch, move, move_whole)


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """All tensors in a nest of mappings, tuples and lists."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors_in(value)


def _map(batch: Any, change: Callable[[Tensor], Tensor], other: Callable[[Any], Any] = lambda value: value) -> Any:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        changed = {key: _map(value, change, other) for key, value in batch.items()}
        if not isinstance(batch, MutableMapping):
            return changed
        twin = copy.copy(batch)  # keeps the type: a batch may have its entries as attributes
        twin.update(changed)
        return twin
    if hasattr(batch, "to"):  # a tuple may be one too: a packed sequence keeps its lengths on the CPU
        return other(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_map(value, change, other) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_map(value, change, other) for value in batch)
    return other(batch)
