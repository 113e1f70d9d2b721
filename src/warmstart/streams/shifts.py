"""Tasks that change from stage to stage: pixels in another order, labels exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from warmstart.seeds import derive


@dataclass(frozen=True, eq=False)
class Shift:
    """How the images or labels of one stage differ from what they are in the data."""

    pixels: Tensor | None = None
    """int64 (H W,): which pixel stands at each place, in all channels alike."""
    labels: Tensor | None = None
    """int64 (classes,): what each class is called."""


def shift_of(kind: str, seed: int, stage: int, pixels: int, classes: int) -> Shift:
    """The shift of one stage; the first stage has its own, like the others."""
    generator = torch.Generator().manual_seed(derive(seed, "shift", stage))
    if kind == "pixels":
        return Shift(pixels=torch.randperm(pixels, generator=generator))
    return Shift(labels=torch.randperm(classes, generator=generator))
