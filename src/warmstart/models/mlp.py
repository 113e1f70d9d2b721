"""mlp: the paper's multi-layer perceptron with batch norm, for images in [0, 1]."""

import math

from torch import nn

from warmstart.errors import at_least_one
from warmstart.image_size import ImageSize, height_and_width
from warmstart.models.network import Network
from warmstart.models.norms_and_activations import Activation, Norm, activation_layer, filters, norm_of_vectors


def mlp(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    *,
    width: int = 1000,
    depth: int = 3,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> nn.Sequential:
    """Make ``depth`` linear layers (2 and 3 in the paper), initialised by PyTorch, norms and activations between them.

    Returns:
        The network.

    Raises:
        InputError: If the width or the depth is below 1, or the width odd with CReLU.
    """
    at_least_one("width", width)
    at_least_one("depth", depth)
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = in_channels * math.prod(height_and_width(image_size))
    for _ in range(depth - 1):
        outputs = filters(activation, width)
        layers += [nn.Linear(inputs, outputs), *norm_of_vectors(norm, outputs), activation_layer(activation)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


NETWORK = Network(
    "mlp",
    mlp,
    "two hidden layers of 1000 units with batch norm; images in [0, 1]",
    "DASH paper (arXiv 2410.23495)",
    input_range="unit",
)
