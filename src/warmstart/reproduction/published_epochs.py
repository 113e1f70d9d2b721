"""How many epochs a stage took in the paper, from its own counts of steps."""

from __future__ import annotations

import math
from statistics import fmean

from warmstart.data.paper_sets import TINY
from warmstart.reproduction.published import PUBLISHED


def published_epochs(dataset: str, optimizer: str, method: str) -> float:
    """The mean number of epochs of a stage in the paper.

    SGD's figures stand in for an optimizer, and Shrink & Perturb's for a method, that the paper does not have.

    Returns:
        Mean steps of a stage over the mean number of batches in its epochs.
    """
    rows = PUBLISHED[dataset]
    optimizer = optimizer if (optimizer, "cold") in rows else "sgd"
    base = method.partition("[")[0]
    row = rows.get((optimizer, base)) or rows[optimizer, "shrink-perturb"]
    size = 2000 if dataset == TINY else 1000
    return row.mean_steps.mean / fmean(math.ceil(size * stage / 128) for stage in range(1, 51))
