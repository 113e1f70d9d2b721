"""How a stage is trained: one set of settings, which the command line, the protocols and the training loop share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import field_validator

from warmstart.errors import one_of
from warmstart.settings import Setting, Settings
from warmstart.training.schedule import Schedule

OPTIMIZERS = ("sgd", "sam", "adamw")
PRECISIONS = ("tf32", "fp32", "bf16")
"""Of training steps; what else is computed is full fp32."""


class Recipe(Settings):
    """How a stage is trained; the defaults are those of `warmstart compare`."""

    title: ClassVar[str] = "The recipe"

    optimizer: Annotated[str, Setting("Optimizer", "NAME", choices=OPTIMIZERS)] = "sgd"
    """`sgd` (no dampening), `sam` (sharpness-aware minimisation over that SGD, rho 0.1) or `adamw` (beta_2 0.999)."""
    batch_size: Annotated[int, Setting("Examples an update", "N", at_least=1)] = 16
    lr: Annotated[float, Setting("Learning rate", "X", above=0)] = 1e-3
    momentum: Annotated[float, Setting("Momentum; beta_1 of adamw", "X", at_least=0, below=1)] = 0.9
    weight_decay: Annotated[float, Setting("Weight decay, on every parameter", "X", at_least=0)] = 0.0
    until: Annotated[
        float | None,
        Setting(
            "A stage ends when an epoch's training accuracy reaches this",
            "X",
            above=0,
            at_most=1,
            remark=" (a share of the examples)",
        ),
    ] = 0.999
    """None trains for ``max_epochs`` and calls it done."""
    max_epochs: Annotated[int, Setting("A stage ends after so many epochs at the latest", "N", at_least=1)] = 10_000
    precision: Annotated[str, Setting("Of training steps", "NAME", choices=PRECISIONS)] = "tf32"
    """``tf32`` (on GPUs; fp32 elsewhere), ``fp32`` or ``bf16`` (autocast; weights stay fp32)."""
    schedule: Schedule | None = None
    """The learning rate stays if not given."""
    augmentation: tuple[str, ...] = ()
    """What happens to a batch's images, in this order: names of `AUGMENTATIONS`."""
    channels_last: bool = True
    """On the CPU, let convolutions read channels-last maps where that is faster, with other roundings (`laid_out`)."""
    captured: bool = True
    """On a GPU, record a step once and replay it. Networks whose Python code acts differently from call to call, such
    as random depth drawn with `random`, need False; what PyTorch draws is anew in each replay."""

    @field_validator("augmentation")
    @classmethod
    def _known_augmentation(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            from warmstart.training.augmentation import AUGMENTATIONS

            one_of("augmentation", name, tuple(AUGMENTATIONS))
        return value
