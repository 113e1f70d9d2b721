"""The last batches of a stream, read without the earlier ones, and loaders that read in order of arrival."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, count, cycle, islice
from operator import gt, index
from typing import Any, cast

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

from warmstart.batches import BATCH, Pieces, cut_from_newest
from warmstart.errors import InputError, at_least_one

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass(frozen=True)
class Tail:
    """The last batches of a stream, oldest first."""

    batches: Iterable[Any]
    left_out: int
    """How many earlier batches there are; they are not loaded if the stream can be indexed."""


Cut = Callable[[int], list[slice]]
"""``cut(examples)``: the parts in which a batch of so many is to be computed."""


def tail(batches: Iterable[Any], last: int | None, cut: Cut | None = None) -> Tail:
    """The last batches of a loader, a sequence or an iterable, oldest first; all of them if ``last`` is None.

    What can be indexed is read only at its end; anything else is consumed once, with at most ``last`` batches held, and
    has to end before `MOST` batches. With a ``cut``, batches of a loader over examples come as `Pieces`, each collated
    by itself: which dimension of which tensor has the examples is known to ``collate_fn`` alone.

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
        return _tail_of_loader(batches, last, cut)
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


def _tail_of_loader(loader: DataLoader[Any], last: int | None, cut: Cut | None) -> Tail:
    if isinstance(loader.dataset, IterableDataset):
        return _tail_of_iterable(loader, last)
    _require_order(loader)
    if changes_batches(loader):
        return _tail_of_iterable(loader, last)
    count = len(loader)
    if count == 0:
        raise InputError("the loader has no batch: its data set is empty or smaller than one batch with drop_last")
    first = 0 if last is None else max(0, count - last)
    if cut is not None and loader.batch_sampler is not None:
        return Tail(_in_pieces(loader, _chosen(loader, first, count), cut), first)
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
    return DataLoader(loader.dataset, batch_sampler=_chosen(loader, first, count), **settings)


def _chosen(loader: DataLoader[Any], first: int, count: int) -> list[Any]:
    """The indices of a loader's batches first..count-1."""
    sampler: Any = loader.sampler
    if type(loader.batch_sampler) is BatchSampler and type(sampler) is SequentialSampler and loader.batch_size:
        size, end = loader.batch_size, len(sampler)
        return [range(i * size, min((i + 1) * size, end)) for i in range(first, count)]
    return list(islice(cast("Iterable[Any]", loader.batch_sampler), first, count))


def _in_pieces(loader: DataLoader[Any], chosen: Iterable[Iterable[int]], cut: Cut) -> Iterator[Pieces]:
    """Batches of these indices, loaded part by part."""
    batches = [one if isinstance(one, (list, tuple, range)) else list(one) for one in chosen]
    parts: list[Any] = [[one[part] for part in cut(len(one))] for one in batches]
    flat = list(chain.from_iterable(parts))
    settings = {**loading_of(loader), "num_workers": min(loader.num_workers, len(flat))}
    loaded = iter(DataLoader(loader.dataset, batch_sampler=flat, **settings))
    for one in parts:
        yield Pieces(tuple(islice(loaded, len(one))), tuple(map(len, one)))


def loading_of(loader: DataLoader[Any]) -> dict[str, Any]:
    """The arguments of a loader that say how an example is loaded, not which; for another loader."""
    names = ("collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context")
    return {name: getattr(loader, name) for name in names}


_SAME_BATCHES = {"torch", "accelerate", "torchdata"}
"""Packages whose loaders give what ``collate_fn`` makes: moved to a device, or from the midst of an epoch on."""


def changes_batches(loader: DataLoader[Any]) -> bool:
    """Whether a subclass of `DataLoader` has an iteration of its own, which may give other batches."""
    own = [getattr(type(loader), name, DataLoader.__iter__) for name in ("__iter__", "_get_iterator")]
    return not {getattr(method, "__module__", "").partition(".")[0] for method in own} <= _SAME_BATCHES


def require_whole(loader: DataLoader[Any]) -> None:
    """Raise InputError unless what a loader reads is known, its own list of indices or the whole indexable data set."""
    if changes_batches(loader):
        raise InputError(
            f"{type(loader).__name__} changes batches in __iter__, which is not called when they are cut anew: do that "
            "in collate_fn, or pass ready batches"
        )
    sampler = _innermost(loader)
    if not isinstance(sampler, Sequence) and _covered(sampler, length_of(loader)) < length_of(loader):
        raise InputError("the loader draws from a part of its data set: pass DataLoader(Subset(dataset, indices), ...)")


def order_of(loader: DataLoader[Any]) -> Sequence[Any]:
    """The indices of what a loader reads, oldest first: its own list of them if it has one, else the whole data set."""
    if isinstance(loader, InOrder):
        return loader.order
    sampler = _innermost(loader)
    if not isinstance(sampler, Sequence):
        return range(length_of(loader))
    if isinstance(sampler, range):
        return sampler
    return [i for one in sampler for i in (one if isinstance(one, (list, tuple, range)) else (one,))]


def length_of(loader: DataLoader[Any]) -> int:
    """The number of examples in a loader's data set."""
    if not isinstance(loader.dataset, Sized):
        raise InputError(f"the data set, a {type(loader.dataset).__name__}, has no length: pass ready batches")
    return len(loader.dataset)


def _innermost(loader: DataLoader[Any]) -> Any:
    """The sampler, or list of indices or of batches of them, that others are wrapped around."""
    sampler: Any = loader.batch_sampler
    for key in ("batch_sampler", "sampler"):
        while (inner := getattr(sampler, key, None)) is not None:
            sampler = inner
    return sampler.tolist() if hasattr(sampler, "tolist") else sampler  # an array


def _covered(sampler: Any, whole: int) -> int:
    """How many of a data set's examples a sampler draws again and again; all of them where that cannot be told."""
    if isinstance(sampler, SubsetRandomSampler):
        return min(len(sampler.indices), whole - 1)
    if isinstance(sampler, WeightedRandomSampler):
        return int((sampler.weights > 0).sum())
    if isinstance(sampler, (SequentialSampler, RandomSampler)):
        return len(sampler.data_source)
    if isinstance(sampler, DistributedSampler):
        return len(sampler.dataset)  # type: ignore[arg-type]  # map-style: it has a length
    if hasattr(sampler, "num_replicas") or iter(sampler) is sampler or _length(sampler) >= whole:
        return whole  # a process's share, what one look would use up, and what may well draw all
    try:
        first, second = (set(_indices(islice(sampler, MOST))) for _ in range(2))
    except TypeError:  # names
        return whole
    return len(first) if first == second else whole  # by chance others each time: of all


def _length(sampler: Any) -> int:
    return len(sampler) if isinstance(sampler, Sized) else 0


class InOrder(DataLoader[Any], Sequence[Any]):
    """A loader in order of arrival. Iteration uses its workers; an index loads that batch in this process."""

    order: Sequence[Any] = ()
    """The indices of all its examples, oldest first, of which a process may have its share."""

    micro_batch_size: int | None = None
    """Examples computed at a time where the caller does not say: as many as the loader that it was made from gave."""

    def __getitem__(self, index: Any) -> Any:
        chosen: Any = cast("Sequence[Any]", self.batch_sampler)[index]
        return self.collate_fn([self.dataset[i] for i in chosen])


def oldest_first(loader: DataLoader[Any], batch_size: int = BATCH) -> DataLoader[Any]:
    """Rebuild a shuffling loader so that it yields its data set in order, oldest first.

    Args:
        loader: A loader over an indexable data set whose examples stand in order of arrival. A list of indices as its
            ``sampler``, or of batches of them as ``batch_sampler``, is taken as that order, and nothing else is read.
        batch_size: Examples a batch, which is the unit of DASH's memory and not of the computer's: `dash_` computes
            as many examples at a time as the loader gave, unless it is told otherwise.

    Returns:
        A loader over the same data set, collating in the same way, without shuffling. Batches are cut from
        the newest example backwards, so that a short one is the oldest.

    Raises:
        InputError: If it is no loader, its data set cannot be indexed or is drawn from in part, its class changes
            batches in ``__iter__``, or the batch size is no whole number of at least 1.

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
    if loader.batch_sampler is None:
        raise InputError("the loader's data set yields whole batches: put these in order yourself, oldest first")
    require_whole(loader)
    at_least_one("batch_size", batch_size)
    ordered = in_batches(loader, batch_size)
    ordered.micro_batch_size = batch_size_of(loader)
    return ordered


def in_batches(loader: DataLoader[Any], size: int, share: Callable[[Any], Any] = lambda indices: indices) -> InOrder:
    """What a loader reads in batches of ``size`` cut from the newest, or the ``share`` of each batch's indices."""
    order = order_of(loader)
    cuts: Any = cut_from_newest(len(order), size, lambda chosen: share(order[chosen.start : chosen.stop]))
    ordered = InOrder(loader.dataset, batch_sampler=cuts, **loading_of(loader))
    ordered.order = order
    return ordered


def _inside(other: Any) -> str:
    return "; pass the one in its .loader" if isinstance(getattr(other, "loader", None), DataLoader) else ""


def batch_size_of(loader: DataLoader[Any]) -> int | None:
    """Examples that a loader gives at a time; None where it does not say."""
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
