"""mlp: the paper's multi-layer perceptron with batch norm, for images in [0, 1]."""

from torch import nn


def mlp(num_classes: int, in_channels: int, image_size: int, *, width: int = 1000, depth: int = 3) -> nn.Sequential:
    """Make a perceptron of linear layers with batch norm and ReLU between them, PyTorch's initialisation.

    Args:
        num_classes: Width of the output.
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        width: Units of each hidden layer.
        depth: Number of linear layers; the paper uses 2 and 3.

    Returns:
        The network. It flattens its input itself.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = in_channels * image_size * image_size
    for _ in range(depth - 1):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))
