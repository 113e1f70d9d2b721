"""How a stage is trained: one set of settings, which the command line, the protocols and the training loop share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from warmstart.errors import require
from warmstart.setting import Setting
from warmstart.settings import Settings
from warmstart.training.schedule import MILESTONES, SCHEDULES, Schedule

OPTIMIZERS = ("sgd", "sam", "adamw", "muon")
AUGMENTS = ("crop", "flip", "rotate", "resized-crop")
PRECISIONS = ("tf32", "fp32", "bf16")
"""Of training steps; what else is computed is full fp32."""


def _warmup(value: Any) -> Any:
    """A whole number of epochs, or a text such as ``10%``."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,7})|\d{1,2}(?:\.\d{1,6})?%", value.strip())
    require(match is not None, f"warmup is '{value:.40}'; give a number of epochs, or a share of a stage such as 10%")
    assert match is not None
    return int(match[1]) if match[1] else match[0]


class Recipe(Settings):
    """How a stage is trained; the defaults are those of `warmstart compare`."""

    title: ClassVar[str] = "The recipe"

    optimizer: Annotated[str, Setting("Optimizer", "NAME", choices=OPTIMIZERS)] = "sgd"
    """`sgd` (no dampening), `sam` (sharpness-aware minimisation over that SGD, rho 0.1), `adamw` (beta_2 0.999) or
    `muon` (orthogonalised momentum for hidden matrices and kernels; AdamW for the output layer, embeddings and the
    rest)."""
    batch_size: Annotated[int, Setting("Examples an update", "N", at_least=1)] = 16
    lr: Annotated[float, Setting("Learning rate", "X", above=0)] = 1e-3
    momentum: Annotated[float, Setting("Momentum; beta_1 of adamw", "X", at_least=0, below=1)] = 0.9
    nesterov: Annotated[bool, Setting("Nesterov's momentum, with sgd and sam", "")] = False
    weight_decay: Annotated[float, Setting("Weight decay, on every parameter", "X", at_least=0)] = 0.0
    until: Annotated[
        float,
        Setting(
            "A stage ends when an epoch's training accuracy reaches this",
            "X",
            above=0,
            at_most=1,
            remark=" (a share of the examples)",
        ),
    ] = 0.999
    max_epochs: Annotated[int, Setting("A stage ends after so many epochs at the latest", "N", at_least=1)] = 10_000
    epochs: Annotated[
        int | None, Setting("Epochs of every stage, without a stopping rule", "N", at_least=1, at_most=1_000_000)
    ] = None
    first_epochs: Annotated[
        int | None,
        Setting(
            "Epochs of the first stage, if it has others", "N", at_least=1, at_most=1_000_000, default="as --epochs"
        ),
    ] = None
    schedule: Annotated[
        str, Setting("How the rate moves within a stage; begun anew at each", "NAME", choices=SCHEDULES)
    ] = "constant"
    warmup: Annotated[
        int | str,
        BeforeValidator(_warmup),
        Setting("Epochs in which the rate climbs first, or their share, at each stage", "N|N%", at_least=0),
    ] = 0
    milestones: Annotated[
        tuple[int, ...],
        Setting(
            "Epochs at which schedule step multiplies the rate by 0.2",
            "N,N",
            at_least=1,
            default="at 30, 60 and 80 % of --epochs",
        ),
    ] = ()
    augment: Annotated[
        tuple[str, ...], Setting("Random changes of training images, in this order", "A,B", choices=AUGMENTS)
    ] = ()
    label_smoothing: Annotated[float, Setting("Label smoothing", "X", at_least=0, below=1)] = 0.0
    clip: Annotated[
        float | None, Setting("Gradients are scaled down to this norm, all together", "X", above=0, default="none")
    ] = None
    new_optimizer: Annotated[bool, Setting("Momentum and moments begin anew at each stage", "")] = False
    precision: Annotated[str, Setting("Of training steps", "NAME", choices=PRECISIONS)] = "tf32"
    """``tf32`` (on GPUs; fp32 elsewhere), ``fp32`` or ``bf16`` (autocast; weights stay fp32)."""
    channels_last: bool = True
    """On the CPU, let convolutions read channels-last maps where that is faster, with other roundings (`laid_out`)."""
    captured: bool = True
    """On a GPU, record a step once and replay it. Networks whose Python code acts differently from call to call, such
    as random depth drawn with `random`, need False; what PyTorch draws is anew in each replay."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.schedule in ("cosine", "one-cycle"):
            require(self.epochs is not None, f"schedule {self.schedule} needs to know a stage's length; give --epochs")
        if self.schedule == "step":
            given = bool(self.milestones) or self.epochs is not None
            require(given, "schedule step needs to know when to lower the rate; give --milestones or --epochs")
        require(not self.milestones or self.schedule == "step", "milestones are for schedule step; add it or drop them")
        ascending = all(before < after for before, after in pairwise(self.milestones))
        require(ascending, f"milestones are {self.milestones}; they must be ascending epochs")
        if self.milestones and self.epochs is not None:
            late = f"milestone {self.milestones[-1]} is beyond a stage's {self.epochs} epochs; leave it out"
            require(self.milestones[-1] < self.epochs, late)
        if self.schedule == "one-cycle":
            require(self.warmup == 0, "schedule one-cycle rises by itself; leave warmup out")
        known = self.epochs is not None or not isinstance(self.warmup, str)
        require(known, f"warmup is {self.warmup} of a stage, whose length is not known; give --epochs, or epochs")
        if self.epochs is not None:
            longer = (
                f"warmup is {self.warmup} of {self.epochs} epochs; give --warmup {self.epochs - 1}, or more --epochs"
            )
            require(self._climb(self.epochs) < self.epochs, longer)
        if self.first_epochs is not None:
            require(self.epochs is not None, "first_epochs is for stages of fixed length; give --epochs for the others")
            climbs = self._climb(self.first_epochs) < self.first_epochs
            require(climbs, f"warmup is {self.warmup} of {self.first_epochs} first epochs")
        if self.nesterov:
            other = f"nesterov is for sgd and sam; with {self.optimizer} give --no-nesterov, and a --lr that suits it"
            require(self.optimizer in ("sgd", "sam"), other)
            require(self.momentum > 0, "nesterov needs momentum; raise it above 0")
        return self

    def require_effect(self, flags: Mapping[str, Any]) -> None:
        """Raise InputError if a flag has no effect: a stopping rule, where stages have a fixed length."""
        super().require_effect(flags)
        for name in ("until", "max_epochs"):
            idle = name in flags and self.epochs is not None
            limit = f", or give --max-epochs {self.epochs} as a limit" if name == "until" else ""
            require(not idle, f"{name} has no effect with epochs, {self.epochs} a stage; leave one of them out{limit}")

    def of_stage(self, number: int) -> Self:
        """The recipe of one stage, from 1: the first may have other epochs."""
        if self.first_epochs is None:
            return self
        epochs = self.first_epochs if number == 1 else self.epochs
        return self.model_copy(update={"epochs": epochs, "first_epochs": None})

    def _climb(self, epochs: int) -> float:
        """Epochs of warm-up in a stage of so many."""
        return float(self.warmup[:-1]) / 100 * epochs if isinstance(self.warmup, str) else self.warmup

    @property
    def rates(self) -> Schedule | None:
        """How the rate moves; None if it stays."""
        if self.schedule == "constant" and self.warmup == 0:
            return None
        usual = {round(share * self.epochs) for share in MILESTONES} if self.epochs is not None else set()
        climb = self._climb(self.epochs or 0)
        return Schedule(self.schedule, self.epochs, climb, self.milestones or tuple(sorted(usual - {0})))
