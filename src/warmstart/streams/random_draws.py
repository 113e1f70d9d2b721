"""How a data set becomes a stream: which new examples arrive at which stage."""

from __future__ import annotations

import torch
from torch import Tensor

from warmstart.data.images import ImageData
from warmstart.errors import InputError, at_least_one


def split_stages(data: ImageData, stages: int, stage_size: int, seed: int) -> list[Tensor]:
    """Draw the new examples of each stage, without replacement.

    Args:
        data: The data set; its test part stays as it is.
        stages: Number of stages.
        stage_size: New examples a stage.
        seed: Decides the split, and nothing else does.

    Returns:
        One int64 tensor (stage_size,) a stage: indices into the training part.

    Raises:
        InputError: If the numbers do not fit the data, there is one class only, or the test part holds a
            class of which no stage has an example.
    """
    for option, value in (("--stages", stages), ("--stage-size", stage_size)):
        at_least_one(option, value)
    available, wanted = len(data.train_labels), stages * stage_size
    if wanted > available:
        raise InputError(
            f"{data.name} has {available} training examples, but {stages} stages of {stage_size} need {wanted}; "
            f"{_what_fits(available, stages, stage_size)}"
        )
    if (data.train_labels == data.train_labels[0]).all():
        only = data.classes[int(data.train_labels[0])]
        raise InputError(f"{data.name} has one class only, '{only}', in its training part; give at least two")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(available, generator=generator)[:wanted]
    _check_test_classes(data, chosen, seed)
    return list(torch.split(chosen, stage_size))


def _what_fits(available: int, stages: int, stage_size: int) -> str:
    fits = []
    if available >= stage_size:
        fits.append(f"--stages {available // stage_size}")
    if available >= stages:
        fits.append(f"--stage-size {available // stages}")
    return f"{' or '.join(fits)} would fit" if fits else "ask for less"


def _check_test_classes(data: ImageData, chosen: Tensor, seed: int) -> None:
    """Refuse a test class that the network could never have seen."""
    seen = torch.bincount(data.train_labels[chosen], minlength=data.num_classes)
    tested = torch.bincount(data.test_labels, minlength=data.num_classes)
    unseen = [data.classes[i] for i in ((tested > 0) & (seen == 0)).nonzero().flatten().tolist()]
    if unseen:
        others = f" (nor are {len(unseen) - 1} others)" if len(unseen) > 1 else ""
        raise InputError(
            f"{data.name}: the test class '{unseen[0]}' is in no stage with seed {seed}{others}; "
            "raise --stages or --stage-size, or remove the class from the test part"
        )
