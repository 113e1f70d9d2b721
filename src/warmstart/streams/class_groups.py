"""The class-incremental stream: each stage brings all examples of some classes."""

from __future__ import annotations

import torch
from torch import Tensor

from warmstart.errors import InputError


def class_groups(where: str, labels: Tensor, pool: Tensor, groups: int, seed: int) -> list[Tensor]:
    """Let classes arrive in groups of about one size.

    Args:
        where: What the data are called, for errors.
        labels: int64 (N,), of all examples.
        pool: Positions that may arrive.
        groups: How many groups.
        seed: It orders the classes, and the examples of a group.

    Returns:
        The positions that arrive with each stage.

    Raises:
        InputError: If there are fewer classes than groups.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = pool[torch.randperm(len(pool), generator=generator)]
    classes = labels[pool].unique()
    if len(classes) < groups:
        raise InputError(
            f"{where} has {len(classes)} classes to train on, which cannot arrive in {groups} groups; "
            f"--stages {len(classes)} would fit"
        )
    order = classes[torch.randperm(len(classes), generator=generator)]
    return [shuffled[torch.isin(labels[shuffled], group)] for group in order.tensor_split(groups)]
