"""The paper's stream: each stage brings new examples that are drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from warmstart.seeds import derive


def random_draws(labels: Tensor, pool: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Draw arrivals without replacement, as the paper does; from the whole pool again where the rest is too small.

    A class that none of the draws holds takes one place of a class that has several, in the first stage if it can be:
    rare classes are then trained on.

    Args:
        labels: int64 (N,), of all examples.
        pool: Positions that may be drawn; as many as the largest arrival has, or more.
        sizes: Examples in each arrival.
        seed: It and the pool decide.

    Returns:
        The positions that arrive with each stage.
    """
    drawn: list[Tensor] = []
    while left := sizes[len(drawn) :]:
        fitting = sum(total <= len(pool) for total in accumulate(left))
        drawn += _one_pass(labels, pool, left[:fitting], derive(seed, "redraw", len(drawn)) if drawn else seed)
    return drawn


def _one_pass(labels: Tensor, pool: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Arrivals that share no example."""
    order = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))]
    drawn = order[: sum(sizes)].clone()
    _let_in_rare_classes(labels, order, drawn, sizes[0])
    return list(drawn.split(list(sizes)))


def _let_in_rare_classes(labels: Tensor, order: Tensor, drawn: Tensor, first: int) -> None:
    """Exchange drawn examples for one of each class that was not drawn, while a class has several."""
    counts = torch.bincount(labels[drawn], minlength=int(labels.max()) + 1)
    places = iter([*reversed(range(first)), *range(first, len(drawn))])
    for label in labels[order].unique().tolist():
        if counts[label] > 0:
            continue
        place = next((place for place in places if counts[labels[drawn[place]]] > 1), None)
        if place is None:
            return
        counts[labels[drawn[place]]] -= 1
        drawn[place] = order[labels[order] == label][0]
        counts[label] = 1
