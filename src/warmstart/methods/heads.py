"""The layer that feeds a network's output: the one that is named, or found by one small pass over the stage's data."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from warmstart.batches import to_device
from warmstart.errors import InputError, nearest, require
from warmstart.gradient_pass import gradient_pass
from warmstart.layers.output import output_layer
from warmstart.methods.method import Stage

_FOUND: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def require_head_name(head: object) -> None:
    """Raise InputError unless it can be the name of a module in a network."""
    require(isinstance(head, str), f"head is a {type(head).__name__}: give a layer's name in model.named_modules()")
    require(head != "", "head is '', which is the whole network: name a layer, or use cold_ to draw all of it anew")


def require_head(model: nn.Module, head: str) -> nn.Module:
    """The module of that name in an unwrapped network; InputError if there is none."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if head not in modules:
        raise InputError(f"the model has no module '{head}'{nearest(head, filter(None, modules))}")
    return modules[head]


def find_head(model: nn.Module, stage: Stage) -> str:
    """The name of the layer that feeds the output; the network is left as it is."""
    batch = to_device(stage.batches(2)[-1], next(model.parameters()).device)
    with gradient_pass(model):
        return output_layer(model, stage.forward_loss(model, batch))[0]


def head_of(model: nn.Module, stage: Stage) -> str:
    """The same, looked for once in a network's life: for methods that ask at each update."""
    if model not in _FOUND:
        _FOUND[model] = find_head(model, stage)
    return _FOUND[model]
