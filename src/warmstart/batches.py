"""The last batches of a stream, read without the earlier ones, and operations on one batch."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, cycle, islice, pairwise
from operator import gt, index, itemgetter
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from warmstart.errors import InputError, at_least_one, number

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
    if not 0 < number("alpha", alpha) <= 1:
        raise InputError(f"alpha is {alpha}; it must lie in (0, 1]")
    if not 0 <= number("tolerance", tolerance) < 1:
        raise InputError(f"tolerance is {tolerance}; it must lie in [0, 1)")
    if alpha == 1:
        return 1
    return None if tolerance == 0 else max(1, math.ceil(math.log(tolerance) / math.log1p(-alpha)))


_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass(frozen=True)
class Tail:
    """The last batches of a stream, oldest first."""

    batches: Iterable[Any]
    left_out: int
    """How many earlier batches there are; they are not loaded if the stream can be indexed."""


def tail(batches: Iterable[Any], last: int | None) -> Tail:
    """The last batches of a loader, a sequence or an iterable, oldest first; all of them if ``last`` is None.

    What can be indexed is read only at its end; anything else is consumed once, with at most ``last`` batches held, and
    has to end before `MOST` batches.

    Returns:
        The batches, loaded as they are iterated over.

    Raises:
        InputError: If there is no batch, the loader shuffles, or it is something else.
    """
    if isinstance(batches, Mapping):
        raise InputError("batches is one mapping, not several: for a single batch pass [batch]")
    if issubclass(type(batches), Dataset) and not isinstance(batches, IterableDataset):
        raise InputError("batches is a Dataset, which holds examples: pass DataLoader(dataset, batch_size=N)")
    if isinstance(batches, DataLoader):
        return _tail_of_loader(batches, last)
    _require_loader_in_order(batches)
    if isinstance(batches, Sequence) or (hasattr(batches, "__getitem__") and hasattr(batches, "__len__")):
        return _tail_of_sequence(batches, last)
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise InputError(f"batches is a {type(batches).__name__}: pass a DataLoader, or batches, oldest first")
    return _tail_of_iterable(batches, last)


def _tail_of_sequence(batches: Any, last: int | None) -> Tail:
    count = len(batches)
    if count == 0:
        raise InputError("batches is empty: give at least one batch, the newest data last")
    first = 0 if last is None else max(0, count - last)
    return Tail((batches[i] for i in range(first, count)), first)


MOST = 1_000_000
"""Batches after which an iterable is taken for an endless one; a sequence or a loader may have more."""


def _within_bounds(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches of an iterable; InputError where it does not end."""
    iterator = iter(batches)
    at_once = isinstance(iterator, (count, cycle))
    return chain(islice(iterator, 0 if at_once else MOST), _refuse_more(iterator))


def _refuse_more(iterator: Iterator[Any]) -> Iterator[Any]:
    for _ in iterator:
        raise InputError(
            f"batches does not end (an iterator may give {MOST:,} of them, a sequence or a loader more): pass one "
            "round over the data, such as itertools.islice(batches, N)"
        )
    yield from ()


def _tail_of_iterable(batches: Iterable[Any], last: int | None) -> Tail:
    iterator = _within_bounds(batches)
    try:
        head = next(iterator)
    except StopIteration:
        raise InputError("batches is empty or already used up: give a fresh iterable, the newest data last") from None
    if last is None:
        return Tail(chain([head], iterator), 0)
    read = 1
    kept: deque[Any] = deque([head], maxlen=last)
    for batch in iterator:
        kept.append(batch)
        read += 1
    return Tail(kept, read - len(kept))


def _tail_of_loader(loader: DataLoader[Any], last: int | None) -> Tail:
    if isinstance(loader.dataset, IterableDataset):
        return _tail_of_iterable(loader, last)
    _require_order(loader)
    count = len(loader)
    if count == 0:
        raise InputError("the loader has no batch: its data set is empty or smaller than one batch with drop_last")
    first = 0 if last is None else max(0, count - last)
    return Tail(loader if first == 0 else _slice_of_loader(loader, first, count), first)


def _require_loader_in_order(batches: Any) -> None:
    """Raise InputError if batches are an object around a loader that shuffles, as timm's PrefetchLoader is."""
    inner = getattr(batches, "loader", None)
    if isinstance(inner, DataLoader) and not isinstance(inner.dataset, IterableDataset):
        kind = type(batches).__name__
        _require_order(inner, f"the loader in the {kind}", f"a {kind} around ws.oldest_first(batches.loader)")


def _require_order(loader: DataLoader[Any], what: str = "the loader", remedy: str = "ws.oldest_first(loader)") -> None:
    """Raise InputError if a loader over an indexable data set draws examples in another order than the data set's."""
    # A list of indices is the caller's own order; of samplers that nobody knows, what they draw decides.
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    outermost = sampler
    while sampler is not None:  # a sampler may wrap another one
        if isinstance(sampler, _SHUFFLING) or getattr(sampler, "shuffle", False):
            raise InputError(
                f"{what} shuffles ({type(sampler).__name__}), so its last batches are not the newest data: pass "
                f"{remedy}, or a DataLoader without shuffle=True over the examples in order of arrival"
            )
        sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)
    sampler, count, key = outermost, len(loader), "batch_sampler"
    while type(sampler) is BatchSampler:
        sampler, count = sampler.sampler, count * sampler.batch_size
    if sampler is not outermost or loader.batch_sampler is None:
        key = "sampler"
    if not _is_in_order(sampler, count):
        raise InputError(
            f"{what} does not draw its examples in the data set's order ({type(sampler).__name__}): pass {remedy}; "
            f"if its own order is that of arrival, pass this as a list, DataLoader(dataset, {key}=list({key}))"
        )


def _is_in_order(sampler: Any, count: int) -> bool:
    """Whether the first ``count`` indices of a sampler are ascending and come again; True where they are no numbers."""
    if isinstance(sampler, (Sequence, SequentialSampler, DistributedSampler)) or iter(sampler) is sampler:
        return True
    try:
        first, second = (_indices(islice(sampler, min(count, MOST))) for _ in range(2))
    except TypeError:
        return True
    # Samplers for several processes may begin anew at the end, so that each process has as many examples.
    return first == second and sum(map(gt, first, first[1:])) <= 1


def _indices(drawn: Iterable[Any]) -> list[int]:
    """The numbers that a sampler, or one of whole batches, gives."""
    return [index(i) for one in drawn for i in (one if isinstance(one, (list, tuple, range)) else (one,))]


def _slice_of_loader(loader: DataLoader[Any], first: int, count: int) -> DataLoader[Any]:
    """The same loader over its batches first..count-1; earlier ones are never read."""
    settings = {**loading_of(loader), "num_workers": min(loader.num_workers, count - first)}
    if loader.batch_sampler is None:  # the data set yields whole batches
        return DataLoader(
            loader.dataset, batch_size=None, sampler=list(islice(loader.sampler, first, count)), **settings
        )
    plain = type(loader.batch_sampler) is BatchSampler and type(loader.sampler) is SequentialSampler
    if plain and loader.batch_size is not None:
        size, end = loader.batch_size, len(loader.dataset)  # type: ignore[arg-type]  # map-style: it has a length
        chosen: list[Any] = [range(i * size, min((i + 1) * size, end)) for i in range(first, count)]
    else:
        chosen = list(islice(loader.batch_sampler, first, count))
    return DataLoader(loader.dataset, batch_sampler=chosen, **settings)


def loading_of(loader: DataLoader[Any]) -> dict[str, Any]:
    """The arguments of a loader that say how an example is loaded, not which; for another loader."""
    names = ("collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context")
    return {name: getattr(loader, name) for name in names}


class InOrder(DataLoader[Any], Sequence[Any]):
    """A loader in order of arrival. Iteration uses its workers; an index loads that batch in this process."""

    micro_batch_size: int | None = None
    """Examples computed at a time where the caller does not say: as many as the loader that it was made from gave."""

    def __getitem__(self, index: Any) -> Any:
        chosen: Any = cast("Sequence[Any]", self.batch_sampler)[index]
        return self.collate_fn([self.dataset[i] for i in chosen])


def oldest_first(loader: DataLoader[Any], batch_size: int = BATCH) -> DataLoader[Any]:
    """Rebuild a shuffling loader so that it yields its data set in order, oldest first.

    Args:
        loader: A loader over an indexable data set whose examples stand in order of arrival.
        batch_size: Examples a batch, which is the unit of DASH's memory and not of the computer's: `dash_` computes
            as many examples at a time as the loader gave, unless it is told otherwise.

    Returns:
        A loader over the same data set, collating in the same way, without shuffling. Batches are cut from
        the newest example backwards, so that a short one is the oldest.

    Raises:
        InputError: If it is no loader, its data set cannot be indexed or is drawn from in part, or the batch size is
            no whole number of at least 1.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.arange(5))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
        >>> [batch.tolist() for [batch] in ws.oldest_first(loader, batch_size=2)]
        [[0], [1, 2], [3, 4]]
    """
    if not isinstance(loader, DataLoader):
        raise InputError(f"oldest_first puts a DataLoader in order, not a {type(loader).__name__}{_inside(loader)}")
    if isinstance(loader.dataset, IterableDataset):
        raise InputError("an IterableDataset has no order to restore: pass an iterable of batches, oldest first")
    if isinstance(loader.sampler, SubsetRandomSampler):
        raise InputError("the loader draws from a part of its data set: pass a DataLoader over Subset(data, indices)")
    if loader.batch_sampler is None:
        raise InputError("the loader's data set yields whole batches: put these in order yourself, oldest first")
    at_least_one("batch_size", batch_size)
    ranges: Any = cut_from_newest(len(loader.dataset), batch_size)  # type: ignore[arg-type]  # map-style: has a length
    ordered = InOrder(loader.dataset, batch_sampler=ranges, **loading_of(loader))
    ordered.micro_batch_size = batch_size_of(loader)
    return ordered


def _inside(other: Any) -> str:
    return "; pass the one in its .loader" if isinstance(getattr(other, "loader", None), DataLoader) else ""


def batch_size_of(loader: DataLoader[Any]) -> int | None:
    """Examples that a loader gives at a time; None where it does not say."""
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)


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


def examples_in(batch: Any) -> int:
    """How many examples a batch holds.

    Returns:
        The length of its lists, where it is lists of one item an example, as of a detector's images and targets; else
        the first dimension of its first tensor that has one; 0 where that cannot be told.
    """
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
    sizes = [tensor.numel() for tensor in tensors_in(batch)]
    return bool(sizes) and max(sizes) == 0


def micro_batches(
    batch: Any, size: int | None, weight: Callable[[Any], float] = examples_in
) -> Iterator[tuple[Any, float]]:
    """Split a batch along the first dimension of its tensors.

    Args:
        batch: A nest of tensors that agree in their first dimension, or lists of one item an example.
        size: Examples a piece; None, and as many as the batch has, leave it whole.
        weight: What the loss of a piece is a mean over: examples, or tokens.

    Yields:
        Each piece with its share of the batch; a loss that is a mean, weighted by the shares, sums to the whole
        batch's.

    Raises:
        InputError: If there are no tensors, or they disagree in their first dimension.
    """
    count = examples_in(batch)
    if size is None or 0 < count <= size:
        yield batch, 1.0
        return
    whole = _lists_of_examples(batch) or all(tensor.shape[:1] == (count,) for tensor in tensors_in(batch))
    if count == 0 or not whole:
        raise InputError(
            "micro_batch_size needs batches whose tensors all have the examples as first dimension, or lists of one "
            "item an example: make it so large that a batch stays whole"
        )
    pieces = [_piece(batch, slice(start, min(count, start + size))) for start in range(0, count, size)]
    weights = [weight(piece) for piece in pieces]
    for piece, part in zip(pieces, weights, strict=True):
        yield piece, part / sum(weights)


def equal_parts(batch: Any, size: int | None) -> list[tuple[Any, int]]:
    """Split a batch for statistics over examples: parts of nearly the same size, and none of a single example.

    Args:
        batch: As for `micro_batches`.
        size: At most so many examples a part, except that a part has at least two; None leaves the batch whole.

    Returns:
        Each part with its number of examples, 1 where they cannot be counted.
    """
    count = examples_in(batch)
    if size is None or count <= max(2, size):
        return [(batch, max(1, count))]
    parts = min(-(-count // size), count // 2)
    bounds = [count * i // parts for i in range(parts + 1)]
    return [(_piece(batch, slice(start, stop)), stop - start) for start, stop in pairwise(bounds)]


def _piece(batch: Any, examples: slice) -> Any:
    """Some of a batch's examples."""
    if not _lists_of_examples(batch):
        return _map(batch, itemgetter(examples))
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
