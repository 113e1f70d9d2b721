"""A stream in the order in which the data really arrived: rows, file names, times, months."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from warmstart.errors import InputError
from warmstart.streams.settings import STAGES
from warmstart.wording import counted


def in_real_order(
    where: str,
    arrived: Sequence[str] | None,
    pool: Tensor,
    stages: int | None,
    beyond: int,
    sizes: Sequence[int] | int | None,
    seed: int,
) -> list[Tensor]:
    """Cut examples into arrivals, the oldest first.

    With ``sizes`` each arrival has so many. Else what arrived at one time arrives together, if times recur (at
    least two examples a time on average); and if they do not, each arrival is an equal part.

    Args:
        where: What the data are called, for errors.
        arrived: When each example arrived, as texts that sort; None for the order in which they are.
        pool: Positions of the examples that may arrive.
        stages: How many arrivals, the oldest; None for all, or for 6 where times do not recur.
        beyond: How many more that are not trained on.
        sizes: Examples in each arrival, or in all of them alike.
        seed: It orders what arrived at one time.

    Returns:
        The positions of each arrival.

    Raises:
        InputError: If there are fewer arrivals, or the pool holds nothing of one.
    """
    times = _ranks(arrived, int(pool.max()) + 1)
    shuffled = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))]
    order = shuffled[torch.argsort(times[shuffled], stable=True)]
    needed = None if stages is None else stages + beyond
    if isinstance(sizes, int):
        arrivals = _equal(order, sizes, len(order) // sizes if sizes else 0)
        remedy = "lower --stages or --stage-size"
    elif sizes is not None:
        enough = sum(end <= len(order) for end in accumulate(sizes))
        arrivals = list(order[: sum(sizes[:enough])].split(list(sizes[:enough]))) if enough else []
        remedy = "lower --stages or --stage-size"
    elif 2 * len(times.unique()) <= len(times):
        arrivals = [order[times[order] == time] for time in range(int(times.max()) + 1)]
        remedy = "lower --stages, or give --stage-size N"
    else:
        needed = needed or STAGES + beyond
        arrivals = _equal(order, len(order) // needed, needed)
        remedy = "lower --stages"
    needed = needed or max(len(arrivals), 1 + beyond)
    if len(arrivals) < needed:
        raise InputError(f"{where}: {counted(len(arrivals), 'arrival')}, but {needed} are needed; {remedy}")
    arrivals = arrivals[:needed]
    empty = next((number for number, part in enumerate(arrivals, start=1) if len(part) == 0), None)
    if empty is not None:
        raise InputError(
            f"{where}: the test part leaves nothing to train on of arrival {empty}; give --stage-size N or --test next"
        )
    return arrivals


def _equal(order: Tensor, size: int, count: int) -> list[Tensor]:
    """The first ``count`` parts of a size; none where it is 0."""
    return list(order[: count * size].view(count, size)) if size else []


def _ranks(arrived: Sequence[str] | None, examples: int) -> Tensor:
    """The rank of each example's time: int64 (N,)."""
    if arrived is None:
        return torch.arange(examples)
    return torch.from_numpy(np.unique(np.array(arrived, dtype=object), return_inverse=True)[1])
