"""Examples in memory: images as uint8 on the training device, normalised batch by batch as they are used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from warmstart.batches import cut_from_newest
from warmstart.training.augmentation import Augmentation

USUAL_PIXELS = 64 * 64
"""Of an image; of larger ones fewer are computed at a time, so that a pass takes no more memory."""
LEAST_IN_A_PASS = 16


@dataclass(frozen=True, eq=False)
class Examples:
    """Images, their labels, and how an image becomes the network's input: ``(image - mean) / std``."""

    images: Tensor
    """uint8 (N, C, H, W), on any device."""
    labels: Tensor
    """int64 (N,), on the same device."""
    mean: Tensor
    """float32 (C, 1, 1), in units of 0..255, on the device where the network is."""
    std: Tensor
    """float32 (C, 1, 1), likewise."""
    pixels: Tensor | None = field(default=None, kw_only=True)
    """int64 (H W,), on the images' device: which pixel is shown at each place; None for their own order."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, index: Tensor | slice) -> Examples:
        """The examples at these positions; a slice shares the memory."""
        images = self.images
        if isinstance(index, Tensor) and images.is_pinned():  # a copy would not be, and its batches would be waited for
            out = torch.empty((len(index), *images.shape[1:]), dtype=images.dtype, pin_memory=True)
            return replace(self, images=torch.index_select(images, 0, index, out=out), labels=self.labels[index])
        return replace(self, images=images[index], labels=self.labels[index])

    def stored(self, index: slice) -> tuple[Tensor, Tensor]:
        """Some of the examples as they are: uint8 images and labels."""
        return self._in_order_of_pixels(self.images[index]), self.labels[index]

    def _in_order_of_pixels(self, images: Tensor) -> Tensor:
        return images if self.pixels is None else images.flatten(2)[:, :, self.pixels].view_as(images)

    def normalised(self, images: Tensor) -> Tensor:
        """Images as the network takes them: float32, where it is."""
        inputs = images.to(self.mean.device, non_blocking=True).to(torch.float32, copy=True)
        return inputs.sub_(self.mean).div_(self.std)

    def batch(self, index: slice, changes: Iterable[Augmentation] = ()) -> tuple[Tensor, Tensor]:
        """One batch where the network is: images, first changed in this order, then normalised as float32; labels."""
        device = self.mean.device
        images, labels = self.stored(index)
        images = images.to(device, non_blocking=True)
        for change in changes:
            images = change(images)
        return self.normalised(images), labels.to(device, non_blocking=True)

    def in_a_pass(self, most: int) -> int:
        """How many of the examples to compute at a time: ``most``, and fewer of images that are large."""
        height, width = self.images.shape[-2:]
        return min(most, max(LEAST_IN_A_PASS, most * USUAL_PIXELS // (height * width)))

    def shuffled(self, generator: torch.Generator) -> Examples:
        """A copy in an order drawn on the CPU: one gather an epoch, so that its batches are plain slices."""
        return self.at(torch.randperm(len(self), generator=generator).to(self.labels.device))

    def in_order(self, batch_size: int) -> Sequence[tuple[Tensor, Tensor]]:
        """Batches in the order of arrival, as they are stored; a short one is the oldest.

        They are to be normalised piece by piece: a thousand large images need not fit into memory as floats.

        Returns:
            uint8 images and labels, each batch read when it is asked for.
        """
        return cut_from_newest(len(self), batch_size, lambda chosen: self.stored(slice(chosen.start, chosen.stop)))


def on_device(images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, device: torch.device) -> Examples:
    """Put a data set from the CPU where it is trained on; ``mean`` and ``std``, float32 (C,), are for [0, 1]."""
    # With its copies, the examples seen so far and these in an epoch's order, it may take half of what is free on a
    # GPU; else it stays in main memory, and travels batch by batch.
    if device.type == "cuda" and 3 * images.numel() > torch.cuda.mem_get_info(device)[0] // 2:
        images, labels = images.pin_memory(), labels.pin_memory()
    else:
        images, labels = images.to(device), labels.to(device)
    scale = [(255 * value).view(-1, 1, 1).to(device) for value in (mean, std)]
    return Examples(images, labels, *scale)
