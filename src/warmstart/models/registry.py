"""The networks by name, and how a user's own is found: a file here that defines a `Network` is found by itself."""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any, cast

from torch import nn

from warmstart.errors import InputError, nearest
from warmstart.importing import defined_in, describe, import_named
from warmstart.models.factory import ModelFactory
from warmstart.models.network import InputRange, Network
from warmstart.spelling import read_settings


@cache
def networks() -> dict[str, Network]:
    """All networks, name -> network, in alphabetical order."""
    found = {value.name: value for value in defined_in("warmstart.models") if isinstance(value, Network)}
    return dict(sorted(found.items()))


def model_factory(text: str) -> ModelFactory:
    """Find a factory by a name in `networks`, or a user's own as `pkg.module:factory`; `check_factory` tries it.

    Settings follow in brackets: ``resnet18[width=16,norm=layer]``. They are the factory's further arguments.

    Returns:
        The factory.

    Raises:
        InputError: If there is none of that name, or a setting is unknown or not valid.
    """
    name = _plain(text)
    factory = networks()[name].factory if name in networks() else _own(name)
    settings = read_settings(text, "model", _settings_of(factory, name) if "[" in text else {})
    return partial(factory, **settings) if settings else factory


def _own(name: str) -> ModelFactory:
    if ":" not in name:
        raise InputError(f"unknown model '{name}' (your own is named pkg.module:factory){nearest(name, networks())}")
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
    return networks()[_plain(text)].input_range if is_ours(text) else "normalised"


def is_ours(text: str) -> bool:
    """Whether a model, with or without settings, is one of `networks`."""
    return _plain(text) in networks()


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
