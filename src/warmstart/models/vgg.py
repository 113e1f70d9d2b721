"""vgg16: Simonyan and Zisserman 2015 (arXiv 1409.1556) with batch norm, as the DASH authors train it.

Parameters carry torchvision's names (vgg16_bn).
"""

import torch
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.image_size import ImageSize, height_and_width
from warmstart.models.network import Network
from warmstart.models.norms_and_activations import Activation, Norm, activation_layer, filters, norm_of_maps

_CONFIGURATION_D = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
_SMALLEST = 32
"""Five poolings halve this to one pixel."""


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions with norm layers, five max-pools, three linear layers with dropout."""

    def __init__(self, num_classes: int, in_channels: int, *, norm: Norm, activation: Activation) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in _CONFIGURATION_D:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            else:
                outputs = filters(activation, width)
                layers.append(nn.Conv2d(channels, outputs, kernel_size=3, padding=1))
                layers += [*norm_of_maps(norm, outputs), activation_layer(activation)]
                channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, filters(activation, 4096)),
            activation_layer(activation),
            nn.Dropout(),
            nn.Linear(4096, filters(activation, 4096)),
            activation_layer(activation),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (batch, classes), of images (batch, channels, height, width), both >= 32, normalised per channel."""
        x = self.avgpool(self.features(images))
        return self.classifier(torch.flatten(x, 1))  # type: ignore[no-any-return]  # nn.Module


def vgg16(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    *,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> VGG16:
    """Return a VGG-16 with batch norm and the classifier made for ImageNet, as the paper has it.

    The classifier is the full one whatever the image size: the last map (1x1 for 32x32 images) is spread to 7x7
    and read by linear layers of 4096, 4096 and `num_classes` units with dropout 0.5. It holds nine tenths of the
    134,309,962 parameters (10 classes of colour images; 0.5 GB, and as much again for gradients and for momentum), and
    what DASH does depends on it: on small images the 49 copies of a feature get one and the same gradient. Convolutions
    are drawn from Kaiming's normal distribution over the fan-out, linear weights from N(0, 0.01^2), biases start at 0.

    Raises:
        InputError: If a side is under 32, too small for five poolings.
    """
    height, width = height_and_width(image_size)
    if min(height, width) < _SMALLEST:
        raise InputError(
            f"model vgg16: halves its images five times, so {height}x{width} pixels leave nothing; "
            f"resize them to {_SMALLEST} or more (--image-size {_SMALLEST}) or choose another model"
        )
    model = VGG16(num_classes, in_channels, norm=norm, activation=activation)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # these convolutions all have one
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return model


NETWORK = Network(
    "vgg16",
    vgg16,
    "VGG-16 with batch norm and its full classifier; images of 32 pixels or more",
    "Simonyan and Zisserman (arXiv 1409.1556), as in the DASH paper (arXiv 2410.23495)",
)
