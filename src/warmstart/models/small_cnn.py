"""small-cnn: three batch-normed convolutions and a linear layer, made to be retrained on a laptop."""

import torch
from torch import Tensor, nn

from warmstart.image_size import ImageSize, height_and_width
from warmstart.models.network import Network
from warmstart.models.norms_and_activations import Activation, Norm, activation_layer, filters, norm_of_maps

_SMALL = 16
"""Images with a side under this many pixels get half the channels, and a first convolution of stride 1."""


class SmallCNN(nn.Module):
    """Three 3x3 convolutions, each with a norm and an activation, then one linear layer on at most 4x4 positions."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, norm: Norm, activation: Activation
    ) -> None:
        super().__init__()
        sides = height_and_width(image_size)
        widths, strides = ((16, 32, 64), (1, 2, 2)) if min(sides) < _SMALL else ((32, 64, 128), (2, 2, 2))
        layers: list[nn.Module] = []
        channels = in_channels
        for width, stride in zip(widths, strides, strict=True):
            outputs = filters(activation, width)
            layers.append(nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=norm == "none"))
            layers += [*norm_of_maps(norm, outputs), activation_layer(activation)]
            sides, channels = (-(-sides[0] // stride), -(-sides[1] // stride)), width
        if max(sides) > 4:
            sides = min(4, sides[0]), min(4, sides[1])
            layers.append(nn.AdaptiveAvgPool2d(sides))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * sides[0] * sides[1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (batch, classes), of images (batch, channels, height, width), normalised per channel."""
        return self.classifier(torch.flatten(self.features(images), 1))  # type: ignore[no-any-return]  # nn.Module


def small_cnn(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    *,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> SmallCNN:
    """Return a small-cnn, initialised by PyTorch: 25,978 parameters for the 8x8 grey digits, 113,962 for CIFAR-10.

    32, 64 and 128 channels at stride 2 each; 16, 32 and 64 channels at strides 1, 2, 2 for images with a
    side under 16 pixels. The last map is averaged down to 4x4 where it is larger. Convolutions have a bias where no
    norm layer follows them.
    """
    return SmallCNN(num_classes, in_channels, image_size, norm=norm, activation=activation)


NETWORK = Network(
    "small-cnn",
    small_cnn,
    "three batch-normed 3x3 convolutions and a linear layer; for laptops",
    "warmstart",
)
