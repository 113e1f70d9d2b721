"""Which layers are convolutions over images."""

from __future__ import annotations

from torch import nn


def image_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """The convolutions over images of a network.

    Args:
        model: Any network.

    Returns:
        The layers; transposed convolutions are none.
    """
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def has_convolution(model: nn.Module) -> bool:
    """Whether a network has a convolution of any kind, such as the one that cuts images into patches."""
    return any(isinstance(layer, nn.modules.conv._ConvNd) for layer in model.modules())
