"""The networks that a comparison can name, and how a user's own is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from torch import nn

from warmstart.errors import InputError, nearest
from warmstart.importing import import_named
from warmstart.models.factory import ModelFactory, check_factory
from warmstart.models.mlp import mlp
from warmstart.models.resnet import resnet18
from warmstart.models.small_cnn import small_cnn
from warmstart.models.vgg import vgg16

__all__ = ["MODELS", "ModelFactory", "ModelInfo", "check_factory", "input_range", "model_factory"]

InputRange = Literal["normalised", "unit"]
"""`normalised`: each channel has mean 0 and std 1 over the training part. `unit`: values in [0, 1]."""


@dataclass(frozen=True)
class ModelInfo:
    """A network by name."""

    factory: ModelFactory
    summary: str
    source: str
    input_range: InputRange = "normalised"


MODELS: Mapping[str, ModelInfo] = {
    "small-cnn": ModelInfo(
        small_cnn, "three batch-normed 3x3 convolutions and a linear layer; for laptops", "warmstart"
    ),
    "mlp": ModelInfo(
        mlp,
        "two hidden layers of 1000 units with batch norm; images in [0, 1]",
        "DASH paper (arXiv 2410.23495)",
        input_range="unit",
    ),
    "resnet18": ModelInfo(
        resnet18,
        "ResNet-18 with a 3x3 stem and max-pool; the paper's main network",
        "He et al. (arXiv 1512.03385), as in the DASH paper (arXiv 2410.23495)",
    ),
    "vgg16": ModelInfo(
        vgg16,
        "VGG-16 with batch norm and its full classifier; images of 32 pixels or more",
        "Simonyan and Zisserman (arXiv 1409.1556), as in the DASH paper (arXiv 2410.23495)",
    ),
}


def model_factory(name: str) -> ModelFactory:
    """Find a factory by a name in `MODELS`, or a user's own as `pkg.module:factory`; `check_factory` tries it."""
    if name in MODELS:
        return MODELS[name].factory
    if ":" not in name:
        raise InputError(f"unknown model '{name}' (your own is named pkg.module:factory){nearest(name, MODELS)}")
    found = import_named(name, "model")
    if isinstance(found, nn.Module):
        raise InputError(
            f"model '{name}' is a network, not a factory; "
            "name a function of (num_classes, in_channels, image_size) that makes a new one"
        )
    if not callable(found):
        raise InputError(
            f"model '{name}' is of type {type(found).__name__} and cannot be called; "
            "name a function of (num_classes, in_channels, image_size) that returns a torch.nn.Module"
        )
    return cast("ModelFactory", found)


def input_range(name: str) -> InputRange:
    """In what range a model wants its images; a user's own gets `normalised`."""
    return MODELS[name].input_range if name in MODELS else "normalised"
