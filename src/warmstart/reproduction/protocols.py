"""The protocols that `warmstart reproduce` knows: what arrives when, and how a stage is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from warmstart.data.paper_sets import PAPER_DATA, TINY
from warmstart.protocols.half import HALF
from warmstart.protocols.incremental import INCREMENTAL
from warmstart.protocols.sota import SOTA
from warmstart.streams.settings import StreamSettings
from warmstart.training.recipe import Recipe


@dataclass(frozen=True)
class PublishedProtocol:
    """A protocol for one data set; the grid, not the recipe, chooses the optimizer."""

    stream: StreamSettings
    recipe: Recipe
    model_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Model -> keyword arguments of its factory."""


SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "incremental": "the paper's main table: 50 stages until 99.9 % training accuracy, no augmentation, lr 1e-3",
        "sota": "the paper's appendix: lr 0.1, weight decay 5e-4, augmentation, schedule; at most 260 epochs a stage",
        "half": "two stages, half of the data and then all of it, 150 epochs each, trained as in sota",
        "reduced": "ours, for two cores: 6 stages of 500, batches of 64, else as incremental",
    }
)
"""Name -> description in one line."""


def find_protocol(protocol: str, dataset: str) -> PublishedProtocol:
    """The protocol for a data set. Source: Shin et al. (arXiv 2410.23495), section 5 and the appendix."""
    return {"incremental": _incremental, "sota": _sota, "half": _half, "reduced": _reduced}[protocol](dataset)


def _incremental(dataset: str) -> PublishedProtocol:
    # 50,000 images of SVHN's 73,257, drawn at random by the seed; 100,000 of Tiny-ImageNet.
    stream = StreamSettings(stages=50, stage_size=2000 if dataset == TINY else 1000)
    return PublishedProtocol(stream, INCREMENTAL.recipe)


_SOTA_RESNET = {"resnet18": {"max_pool": False, "fan_out_init": False}}


def _sota(dataset: str) -> PublishedProtocol:
    augment = {
        "cifar10": ("crop", "flip"),
        "cifar100": ("crop", "flip", "rotate"),
        "svhn": ("crop",),  # mirrored digits are no digits
        TINY: ("flip", "resized-crop"),
    }
    recipe = SOTA.recipe.model_copy(update={"augment": augment[dataset]})
    return PublishedProtocol(_incremental(dataset).stream, recipe, _SOTA_RESNET)


def _half(dataset: str) -> PublishedProtocol:
    sota = _sota(dataset)
    stream = StreamSettings(stages=2, stage_size=PAPER_DATA[dataset].train_examples // 2)
    recipe = HALF.recipe.model_copy(update={"augment": sota.recipe.augment})
    return PublishedProtocol(stream, recipe, sota.model_settings)


def _reduced(dataset: str) -> PublishedProtocol:
    return PublishedProtocol(
        StreamSettings(stages=6, stage_size=500), INCREMENTAL.recipe.model_copy(update={"batch_size": 64})
    )
