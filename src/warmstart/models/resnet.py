"""resnet18: He et al. 2016 (arXiv 1512.03385) with a stem for small images, as in the DASH paper.

Parameters carry torchvision's names, so weights move between the two (but for the stem, 7x7 there); they are the same
with layer norm, in ``bn1`` too.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from warmstart.errors import at_least_one
from warmstart.image_size import ImageSize
from warmstart.models.network import Network
from warmstart.models.norms_and_activations import norm_of_maps

Norm = Literal["batch", "layer"]
"""Not without: its depth needs a norm."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = _norm(norm, outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = _norm(norm, outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, _norm(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride), rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += shortcut
        return self.relu(out)  # type: ignore[no-any-return]  # nn.Module's call is untyped


class ResNet18(nn.Module):
    """A 3x3 stem, four stages of two blocks with width, 2, 4 and 8 times width channels, and a linear layer."""

    def __init__(self, num_classes: int, in_channels: int, *, width: int, max_pool: bool, norm: Norm) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.conv1 = _conv3x3(in_channels, width)
        self.bn1 = _norm(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if max_pool else nn.Identity()
        self.layer1 = _stage(width, width, stride=1, norm=norm)
        self.layer2, self.layer3, self.layer4 = (
            _stage(inputs, outputs, stride=2, norm=norm) for inputs, outputs in pairwise(widths)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (batch, classes), of images (batch, channels, height, width), normalised per channel."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]  # nn.Module


def resnet18(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    *,
    width: int = 64,
    max_pool: bool = True,
    fan_out_init: bool = True,
    norm: Norm = "batch",
) -> ResNet18:
    """Return a ResNet-18 for small images of any size: 11,173,962 parameters for 10 classes of colour images.

    The defaults are the paper's main network. Its protocol *sota* takes away the stem's max-pool, 3x3 with stride 2,
    and leaves convolutions as PyTorch initialises them; ``fan_out_init`` draws them from Kaiming's normal distribution
    over the fan-out. Batch norm starts at gain 1 and bias 0, the linear layer at PyTorch's default either way.
    ``width`` is the stem's and the first stage's number of channels; each further stage has twice as many.

    Raises:
        InputError: If the width is below 1.
    """
    at_least_one("width", width)
    model = ResNet18(num_classes, in_channels, width=width, max_pool=max_pool, norm=norm)
    if fan_out_init:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def _norm(norm: Norm, channels: int) -> nn.Module:
    return norm_of_maps(norm, channels)[0]


def _stage(inputs: int, outputs: int, *, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride, norm), BasicBlock(outputs, outputs, 1, norm))


NETWORK = Network(
    "resnet18",
    resnet18,
    "ResNet-18 with a 3x3 stem and max-pool; the paper's main network",
    "He et al. (arXiv 1512.03385), as in the DASH paper (arXiv 2410.23495)",
)
