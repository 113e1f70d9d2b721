"""The layer that feeds a network's output, found by one small pass over the stage's data."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from warmstart.batches import to_device
from warmstart.gradient_ema import gradient_pass
from warmstart.layers.output import output_layer
from warmstart.methods.method import Stage

_FOUND: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


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
