"""Tasks that change from stage to stage: pixels in another order, labels exchanged, labels drawn anew."""

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
    drawn: Tensor | None = None
    """int64 (N,): the label of each of the stage's examples, whatever is on the image."""


def shift_of(kind: str, seed: int, stage: int, pixels: int, classes: int, examples: int) -> Shift:
    """The shift of one stage; the first stage has its own, like the others.

    Args:
        kind: ``pixels``, ``labels``, or ``random-labels``: drawn for each image, so that they can only be memorised
            (Lyle et al., arXiv 2303.01486; Kumar et al., arXiv 2308.11958, with the same 1200 images in 50 tasks).
        seed: The run's.
        stage: Its number.
        pixels: Of an image.
        classes: Of the data.
        examples: Of the stage.

    Returns:
        The shift.
    """
    generator = torch.Generator().manual_seed(derive(seed, "shift", stage))
    if kind == "pixels":
        return Shift(pixels=torch.randperm(pixels, generator=generator))
    if kind == "labels":
        return Shift(labels=torch.randperm(classes, generator=generator))
    return Shift(drawn=torch.randint(classes, (examples,), generator=generator))
