"""The networks that a comparison can name, and how a user's own is found."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from torch import nn

from warmstart.errors import InputError, nearest
from warmstart.importing import describe, import_named
from warmstart.models.factory import ModelFactory, check_factory
from warmstart.models.mlp import mlp
from warmstart.models.resnet import resnet18
from warmstart.models.small_cnn import small_cnn
from warmstart.models.vgg import vgg16
from warmstart.spelling import read_settings

__all__ = ["MODELS", "ModelFactory", "ModelInfo", "check_factory", "input_range", "is_ours", "model_factory"]

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


def model_factory(text: str) -> ModelFactory:
    """Find a factory by a name in `MODELS`, or a user's own as `pkg.module:factory`; `check_factory` tries it.

    Settings follow in brackets: ``resnet18[width=16,norm=layer]``. They are the factory's further arguments.

    Returns:
        The factory.

    Raises:
        InputError: If there is none of that name, or a setting is unknown or not valid.
    """
    name = _plain(text)
    factory = MODELS[name].factory if name in MODELS else _own(name)
    settings = read_settings(text, "model", _settings_of(factory, name) if "[" in text else {})
    return partial(factory, **settings) if settings else factory


def _own(name: str) -> ModelFactory:
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


def input_range(text: str) -> InputRange:
    """In what range a model wants its images; a user's own gets `normalised`."""
    return MODELS[_plain(text)].input_range if is_ours(text) else "normalised"


def is_ours(text: str) -> bool:
    """Whether a model, with or without settings, is one of `MODELS`."""
    return _plain(text) in MODELS


def _plain(text: str) -> str:
    return text.strip().partition("[")[0]


def _settings_of(factory: ModelFactory, name: str) -> dict[str, Any]:
    """The arguments of a factory behind the first three: name -> type, its default's where it is not annotated."""
    try:
        further = list(inspect.signature(factory, eval_str=True).parameters.values())[3:]
    except (TypeError, ValueError, NameError, AttributeError) as error:  # annotations are a user's own code
        raise InputError(f"model '{name}': its settings cannot be read: {describe(error)}") from None
    named = [one for one in further if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return {one.name: type(one.default) if one.annotation is one.empty else one.annotation for one in named}
