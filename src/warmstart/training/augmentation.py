"""Random changes of a batch of images, each image by its own draw, computed for the whole batch on its device.

What they do is what torchvision's transforms of the same names do to a single image; black is 0, before normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

Augmentation = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in 0..255, uint8 or float -> a copy of the same size; all randomness is PyTorch's global one."""

PADDING = 4
DEGREES = 15.0
AREA, LOG_RATIO = (0.08, 1.0), (math.log(3 / 4), math.log(4 / 3))
ATTEMPTS = 10


def crop(images: Tensor) -> Tensor:
    """Shift by up to 4 pixels each way, 0 coming in: `RandomCrop(size, padding=4)`."""
    count, channels, height, width = images.shape
    top, left = torch.randint(2 * PADDING + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    image = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return pad(images, [PADDING] * 4)[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def flip(images: Tensor) -> Tensor:
    """Mirror each image or not, left to right: `RandomHorizontalFlip()`."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def rotate(images: Tensor) -> Tensor:
    """Turn by up to 15 degrees about the centre, 0 coming in: `RandomRotation(15)`, to the nearest pixel."""
    count, _, height, width = images.shape
    angle = torch.deg2rad(_between(-DEGREES, DEGREES, (count,), images.device))
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # affine_grid measures in half widths and half heights.
    rows = [cos, -sin * height / width, none, sin * width / height, cos, none]
    grid = affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(images.dtype)


def resized_crop(images: Tensor) -> Tensor:
    """Enlarge a random part to the full size, as float32: `RandomResizedCrop(size)`, bilinear."""
    count, _, height, width = images.shape
    top, left, rows, columns = _boxes(count, height, width, images.device)
    y = _places(top, rows, height)[:, :, None].expand(-1, -1, width)
    x = _places(left, columns, width)[:, None, :].expand(-1, height, -1)
    return grid_sample(images.float(), torch.stack([x, y], -1), padding_mode="border", align_corners=False)


def _boxes(count: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Area and shape are drawn until the part fits, ten times at most, all at once; else it is the whole image, whose
    # shape is an allowed one: images are square here.
    area = height * width * _between(*AREA, (ATTEMPTS, count), device)
    ratio = _between(*LOG_RATIO, (ATTEMPTS, count), device).exp()
    columns, rows = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (columns > 0) & (columns <= width) & (rows > 0) & (rows <= height)
    first = fits.int().argmax(0, keepdim=True)
    columns = torch.where(fits.any(0), columns.gather(0, first)[0], width)
    rows = torch.where(fits.any(0), rows.gather(0, first)[0], height)
    top, left = torch.rand(2, count, device=device)
    return (top * (height - rows + 1)).floor(), (left * (width - columns + 1)).floor(), rows, columns


def _between(low: float, high: float, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(shape, device=device)


def _places(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where to read the ``size`` pixels of an enlarged part, from -1 to 1 over the whole line: (N, size)."""
    centres = torch.arange(size, device=start.device) + 0.5
    inside = centres * (length / size)[:, None] - 0.5
    inside = inside.clamp(min=0.0).minimum(length[:, None] - 1)  # beyond the part its edge is repeated
    return (2 * (start[:, None] + inside) + 1) / size - 1


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "crop": crop,
    "flip": flip,
    "rotate": rotate,
    "resized-crop": resized_crop,
}
"""By the names of the command line."""
