"""The norm layers and activations that the networks can be made with."""

from __future__ import annotations

from typing import Literal

from torch import nn

from warmstart.errors import require
from warmstart.layers.activations import CReLU

Norm = Literal["batch", "layer", "none"]
"""`layer` normalises each example over all units of a layer (Ba et al. 2016, arXiv 1607.06450): over channels and
positions of a map, with a gain and an offset for each channel. That is `nn.GroupNorm(1, channels)` (Wu and He 2018,
arXiv 1803.08494), which fits images of any size; `nn.LayerNorm` over (channels, height, width) has gains for each
position. The DASH authors' code normalises each position over its channels instead, as ConvNeXt does."""

Activation = Literal["relu", "crelu"]
"""With `crelu` a layer has half the filters, so that what the next one reads is as wide as with `relu`."""


def norm_of_maps(norm: Norm, channels: int) -> list[nn.Module]:
    """The norm layer behind a convolution, if any."""
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]


def norm_of_vectors(norm: Norm, units: int) -> list[nn.Module]:
    """The norm layer behind a linear layer, if any."""
    if norm == "none":
        return []
    return [nn.BatchNorm1d(units) if norm == "batch" else nn.LayerNorm(units)]


def activation_layer(activation: Activation) -> nn.Module:
    """The module."""
    return CReLU() if activation == "crelu" else nn.ReLU(inplace=True)


def filters(activation: Activation, width: int) -> int:
    """How many outputs a layer has whose activation is to be ``width`` wide."""
    require(activation == "relu" or width % 2 == 0, f"width is {width}; with crelu it must be even")
    return width // 2 if activation == "crelu" else width
