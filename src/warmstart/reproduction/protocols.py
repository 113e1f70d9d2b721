"""The protocols that `warmstart reproduce` knows: what arrives when, and how a stage is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from warmstart.data.paper_data import PAPER_DATA
from warmstart.training.loop import Recipe
from warmstart.training.schedule import Schedule

TINY = "tiny-imagenet"


@dataclass(frozen=True)
class StageTraining:
    """A protocol for one data set."""

    stages: int
    stage_size: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    until: float | None = 0.999
    max_epochs: int = 10_000
    schedule: Schedule | None = None
    augmentation: tuple[str, ...] = ()
    model_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Model -> keywords of its factory."""

    def recipe(self, batch_size: int | None, max_epochs: int | None, precision: str) -> Recipe:
        """How a stage is trained.

        Args:
            batch_size: Examples an update; None takes the protocol's.
            max_epochs: When a stage ends at the latest; None takes the protocol's.
            precision: Of the training steps.

        Returns:
            The recipe.
        """
        return Recipe(
            batch_size=batch_size or self.batch_size,
            until=self.until,
            max_epochs=max_epochs or self.max_epochs,
            schedule=self.schedule,
            augmentation=self.augmentation,
            precision=precision,
        )


SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "incremental": "the paper's main table: 50 stages until 99.9 % training accuracy, no augmentation, lr 1e-3",
        "sota": "the paper's appendix: lr 0.1, weight decay 5e-4, augmentation, schedule; at most 260 epochs a stage",
        "half": "two stages, half of the data and then all of it, 150 epochs each, trained as in sota",
        "reduced": "ours, for two cores: 6 stages of 500, batches of 64, else as incremental",
    }
)
"""Name -> what it is, in one line."""


def stage_training(protocol: str, dataset: str) -> StageTraining:
    """A protocol for a data set.

    Args:
        protocol: A key of `SUMMARIES`.
        dataset: A key of `PAPER_DATA`.

    Returns:
        How it is trained. Source: Shin et al. (arXiv 2410.23495), section 5 and the appendix.
    """
    return {"incremental": _incremental, "sota": _sota, "half": _half, "reduced": _reduced}[protocol](dataset)


def _incremental(dataset: str) -> StageTraining:
    # 50,000 images of SVHN's 73,257, drawn at random by the seed; 100,000 of Tiny-ImageNet.
    return StageTraining(stages=50, stage_size=2000 if dataset == TINY else 1000, batch_size=128, lr=1e-3)


_SOTA_RESNET = {"resnet18": {"max_pool": False, "fan_out_init": False}}


def _sota(dataset: str) -> StageTraining:
    augmentation = {
        "cifar10": ("crop", "flip"),
        "cifar100": ("crop", "flip", "rotate"),
        "svhn": ("crop",),  # mirrored digits are no digits
        TINY: ("flip", "resized-crop"),
    }
    return StageTraining(
        stages=50,
        stage_size=2000 if dataset == TINY else 1000,
        batch_size=128,
        lr=0.1,
        weight_decay=5e-4,
        max_epochs=260,
        schedule=Schedule((60, 120, 160, 200), 0.2, warmup_epochs=1),
        augmentation=augmentation[dataset],
        model_settings=_SOTA_RESNET,
    )


def _half(dataset: str) -> StageTraining:
    sota = _sota(dataset)
    return StageTraining(
        stages=2,
        stage_size=PAPER_DATA[dataset].train_examples // 2,
        batch_size=sota.batch_size,
        lr=sota.lr,
        weight_decay=sota.weight_decay,
        until=None,
        max_epochs=150,
        schedule=Schedule((60, 120), 0.2, warmup_epochs=1),
        augmentation=sota.augmentation,
        model_settings=sota.model_settings,
    )


def _reduced(dataset: str) -> StageTraining:
    return StageTraining(stages=6, stage_size=500, batch_size=64, lr=1e-3)
