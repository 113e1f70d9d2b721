"""The paper's stream: each stage brings new examples that are drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_draws(labels: Tensor, pool: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Draw arrivals without replacement, as the paper does.

    A class that none of the draws holds takes one place of a class that has several, in the first stage if it can be:
    rare classes are then trained on.

    Args:
        labels: int64 (N,), of all examples.
        pool: Positions that may be drawn; as many as arrive, or more.
        sizes: Examples in each arrival.
        seed: It and the pool decide.

    Returns:
        The positions that arrive with each stage.
    """
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
