"""Recurrent layers, which cuDNN differentiates in train mode only."""

from __future__ import annotations

from torch import nn


def recurrent_layers(model: nn.Module) -> list[nn.RNNBase]:
    """The RNN, LSTM and GRU layers, which cuDNN differentiates in train mode only."""
    return [layer for layer in model.modules() if isinstance(layer, nn.RNNBase)]
