"""What serves 1x1 kernels best: two networks that are mostly made of them, and a coin flip in place of the sign test.

A 1x1 kernel is one weight, and its cosine with the gradient only a sign. docs/dash.md shows what was measured with
these; PYTHONPATH holds this folder where they are named:

    PYTHONPATH=benchmarks warmstart compare --model pointwise_networks:separable --methods cold,dash
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

import warmstart as ws
from warmstart.image_size import ImageSize


def separable(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Return a depthwise-separable network like MobileNet, of 68,000 weights: 87 % are 1x1 kernels."""
    channels = 32
    layers: list[nn.Module] = [*_normed(nn.Conv2d(in_channels, channels, 3, 2, 1, bias=False)), nn.ReLU(inplace=True)]
    for outputs, stride in ((64, 2), (128, 1), (128, 2), (256, 1)):
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, outputs, 1, bias=False)
        for convolution in (depthwise, pointwise):
            layers += [*_normed(convolution), nn.ReLU(inplace=True)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normed(nn.Conv2d(inputs, width, 1, bias=False)),
            nn.ReLU(inplace=True),
            *_normed(nn.Conv2d(width, width, 3, stride, 1, bias=False)),
            nn.ReLU(inplace=True),
            *_normed(nn.Conv2d(width, outputs, 1, bias=False)),
        )
        changes = stride != 1 or inputs != outputs
        projection = _normed(nn.Conv2d(inputs, outputs, 1, stride, bias=False)) if changes else ()
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride), rounded up."""
        return torch.relu(self.body(x) + self.shortcut(x))


def bottlenecks(num_classes: int, in_channels: int, image_size: ImageSize, *, width: int = 8) -> nn.Module:
    """Return a ResNet of two bottlenecks at each of four widths, of 224,000 weights: 53 % are 1x1 kernels."""
    stem = [*_normed(nn.Conv2d(in_channels, width, 3, 2, 1, bias=False)), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels, blocks = width, []
    for level in range(4):
        inner = width << level
        for stride in (2 if level else 1, 1):
            blocks.append(Bottleneck(channels, inner, 4 * inner, stride))
            channels = 4 * inner
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def _normed(convolution: nn.Conv2d) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)


@dataclass(frozen=True)
class CoinFlip(ws.Method):
    """DASH by kernels, where chance decides which 1x1 kernels of a layer get the sign test's scales."""

    name: ClassVar[str] = "coin-flip"
    summary: ClassVar[str] = "DASH by kernels, with the scales of 1x1 kernels dealt out at random within their layer"
    source: ClassVar[str] = "docs/dash.md"

    @torch.no_grad()
    def on_new_data(self, model: nn.Module, stage: ws.Stage) -> ws.Report:
        """Apply DASH, then deal out anew what 1x1 convolutions were scaled by."""
        convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
        weights = [layer.weight for layer in convolutions if layer.kernel_size == (1, 1)]
        before = [weight.clone() for weight in weights]
        report = ws.dash_(
            model,
            stage.batches(None),
            forward_loss=stage.forward_loss,
            granularity="kernel",
            micro_batch_size=stage.micro_batch_size,
        )
        for weight, old in zip(weights, before, strict=True):
            scales = (weight / old).nan_to_num(1.0).flatten()
            dealt = scales[torch.randperm(len(scales), generator=stage.generator)]
            weight.copy_(old * dealt.view_as(old))
        return report.with_notes("the scales of 1x1 kernels dealt out at random")
