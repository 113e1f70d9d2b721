"""All data so far in batches of any size, cut from the newest example backwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard, cast

import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, IterableDataset

from warmstart.batches import BATCH, examples_in
from warmstart.errors import InputError
from warmstart.loaders import InOrder, batch_size_of, in_batches, order_of, require_whole
from warmstart.processes import Team

MICRO_BATCH = 32
"""Examples computed at a time if the loader's sampler has no batch size; it changes memory, not the result."""


def in_order(batches: Iterable[Any], size: int | None, team: Team) -> Sequence[Any]:
    """Batches of ``size`` examples, `BATCH` if None, over what a loader reads, oldest first.

    A loader's size does not matter, and its order only where it is a list of indices; ready batches stay as they are.

    Returns:
        The batches; in a team, this process's share of each.
    """
    if not is_indexable(batches):
        return cast("Sequence[Any]", batches)
    if team.size == 1:
        return in_batches(batches, size or BATCH)
    rank = dist.get_rank(team.group)
    # A first batch with fewer examples than processes goes to each of them whole: the mean is the same.
    return in_batches(batches, size or BATCH, lambda cut: cut[rank :: team.size] if len(cut) >= team.size else cut)


def require_batches(batches: Any) -> None:
    """Raise InputError unless these are batches: no data set, not empty, no loader over a part of its data set."""
    if isinstance(batches, Dataset) or hasattr(batches, "column_names"):
        raise InputError("batches is a data set: pass DataLoader(dataset, batch_size=...), its own order oldest first")
    if not isinstance(batches, Iterable):
        raise InputError(f"batches is a {type(batches).__name__}: pass a DataLoader or batches, oldest first")
    if is_indexable(batches):
        require_whole(batches)
    if seen(batches) == 0:
        raise InputError("there is no data: batches holds no example")


def is_indexable(batches: Any) -> TypeGuard[DataLoader[Any]]:
    """Whether batches can be cut anew, as those of a loader over an indexable data set; ready batches cannot."""
    if not isinstance(batches, DataLoader) or isinstance(batches.dataset, IterableDataset):
        return False
    return batches.batch_sampler is not None


def micro_batch_size(batches: Iterable[Any]) -> int | None:
    """The loader's batch size, `MICRO_BATCH` where it has none of its own; None for ready batches."""
    if not is_indexable(batches):
        return None
    asked = batches.micro_batch_size if isinstance(batches, InOrder) else batch_size_of(batches)
    return asked or MICRO_BATCH


def seen(batches: Iterable[Any]) -> int | None:
    """The number of examples so far; None where only reading them all would tell."""
    if is_indexable(batches):
        return len(order_of(batches))
    if isinstance(batches, (list, tuple)) and batches:
        return sum(examples_in(batch) for batch in batches) or None
    return 0 if isinstance(batches, Sequence) and len(batches) == 0 else None
