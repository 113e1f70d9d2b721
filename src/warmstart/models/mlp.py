"""mlp: the paper's multi-layer perceptron with batch norm, for images in [0, 1]."""

import math

from torch import nn

from warmstart.image_size import ImageSize, height_and_width


def mlp(
    num_classes: int, in_channels: int, image_size: ImageSize, *, width: int = 1000, depth: int = 3
) -> nn.Sequential:
    """Make ``depth`` linear layers (2 and 3 in the paper), initialised by PyTorch, batch norm and ReLU between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = in_channels * math.prod(height_and_width(image_size))
    for _ in range(depth - 1):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))
