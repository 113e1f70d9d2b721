"""Recurrent layers, which cuDNN differentiates in train mode only."""

from __future__ import annotations

from torch import nn


def recurrent_layers(model: nn.Module) -> list[nn.RNNBase]:
    """The recurrent layers of a network: cuDNN differentiates them in train mode only.

    Args:
        model: Any network.

    Returns:
        Its RNN, LSTM and GRU layers.
    """
    return [layer for layer in model.modules() if isinstance(layer, nn.RNNBase)]
