"""Test parts cut from the training data: a fifth of each class, and as many such as there are fifths."""

from __future__ import annotations

import torch
from torch import Tensor

FOLDS = 5


def folds(labels: Tensor) -> Tensor:
    """Deal the examples of each class out to five folds of about one size, always in the same way.

    Args:
        labels: int64 (N,).

    Returns:
        int64 (N,), each example's fold. A class with fewer than five examples is in as many folds; a single example is
        in none (-1), since its class could not be trained on.
    """
    generator = torch.Generator().manual_seed(0)
    found = torch.full((len(labels),), -1)
    begin = 0
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            continue
        shuffled = members[torch.randperm(len(members), generator=generator)]
        found[shuffled] = (begin + torch.arange(len(members))) % FOLDS
        begin += len(members)
    return found
