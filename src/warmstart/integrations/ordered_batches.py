"""All data so far as a method asks for it: batches of any size, cut from the newest example backwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Any, TypeGuard, cast

import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler

from warmstart.batches import cut_from_newest, examples_in, loading_of
from warmstart.errors import InputError
from warmstart.processes import Team

BATCH = 1000
"""Examples a batch where the method does not say: the paper's."""

MICRO_BATCH = 32
"""Examples computed at a time where the loader's sampler does not say; it changes memory, not the result."""


class InOrder(DataLoader[Any], Sequence[Any]):
    """A loader in order of arrival. Iterated over, it uses its workers; indexed, it loads that batch right here."""

    def __getitem__(self, index: Any) -> Any:
        chosen: Any = cast("Sequence[Any]", self.batch_sampler)[index]
        return self.collate_fn([self.dataset[i] for i in chosen])


def in_order(batches: Iterable[Any], size: int | None, team: Team) -> Sequence[Any]:
    """Batches of some size over a loader's data set, oldest first, whatever the loader's own order and size.

    Args:
        batches: A loader, whose data set holds its examples in order of arrival, or ready batches, oldest first.
        size: Examples a batch; `BATCH` if None. Ready batches stay as they are.
        team: The processes that share each batch; each of them loads its own share.

    Returns:
        The batches.
    """
    if not is_indexable(batches):
        return cast("Sequence[Any]", batches)
    cuts: Any = cut_from_newest(_length(batches), size or BATCH)
    if team.size > 1:
        rank = dist.get_rank(team.group)
        # Of a first batch with fewer examples than processes each takes all: the mean over equal shares is the same.
        cuts = [cut[rank :: team.size] if len(cut) >= team.size else cut for cut in cuts]
    return InOrder(batches.dataset, batch_sampler=cuts, **loading_of(batches))


def require_batches(batches: Any) -> None:
    """Refuse what cannot be read as batches, oldest first.

    Args:
        batches: As for `in_order`.

    Raises:
        InputError: If there are no examples, or it is a data set, or a loader that draws from a part of its own.
    """
    if isinstance(batches, Dataset) or hasattr(batches, "column_names"):
        raise InputError("batches is a data set: pass DataLoader(dataset, batch_size=...), its own order oldest first")
    if not isinstance(batches, Iterable):
        raise InputError(f"batches is a {type(batches).__name__}: pass a DataLoader or batches, oldest first")
    sampler = getattr(getattr(batches, "batch_sampler", None), "sampler", None)
    if isinstance(sampler, SubsetRandomSampler):
        raise InputError("the loader draws from a part of its data set: pass DataLoader(Subset(dataset, indices), ...)")
    if seen(batches) == 0:
        raise InputError("there is no data: batches holds no example")


def is_indexable(batches: Any) -> TypeGuard[DataLoader[Any]]:
    """Whether batches can be cut anew: a loader that collates the examples of an indexable data set.

    Args:
        batches: As for `in_order`.

    Returns:
        False for ready batches, of which the order and size are given.
    """
    if not isinstance(batches, DataLoader) or isinstance(batches.dataset, IterableDataset):
        return False
    return batches.batch_sampler is not None


def micro_batch_size(batches: Iterable[Any]) -> int | None:
    """How many examples fit into one forward and backward pass: as many as a training batch holds.

    Args:
        batches: As for `in_order`.

    Returns:
        The loader's batch size, `MICRO_BATCH` where it has none of its own; None for ready batches.
    """
    if not is_indexable(batches):
        return None
    return batches.batch_size or getattr(batches.batch_sampler, "batch_size", None) or MICRO_BATCH


def seen(batches: Iterable[Any]) -> int | None:
    """How many examples have arrived so far.

    Args:
        batches: As for `in_order`.

    Returns:
        Their number; None where only reading them all would tell.
    """
    if is_indexable(batches):
        return _length(batches)
    if isinstance(batches, (list, tuple)) and batches:
        return sum(examples_in(batch) for batch in batches) or None
    return 0 if isinstance(batches, Sequence) and len(batches) == 0 else None


def _length(loader: DataLoader[Any]) -> int:
    if not isinstance(loader.dataset, Sized):
        raise InputError(f"the data set, a {type(loader.dataset).__name__}, has no length: pass ready batches")
    return len(loader.dataset)
