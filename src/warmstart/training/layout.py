"""How feature maps lie in memory while a network is trained and measured on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.layers.convolutions import image_convolutions
from warmstart.training.examples import Examples

SMALLEST = 16
"""Pixels a side from which on images are worth it: small-cnn on digits of 8x8 gained nothing, and stays as it is."""

WIDE = 256
"""Outputs from which on a convolution reads its maps channel by channel all the same. Its kernel, a MiB or more, no
longer fits a core's cache, and with channels last oneDNN walks through it once for each row of a map. Milliseconds of
one core forward and backward, channels first -> last, 128 images, PyTorch 2.13, AVX-512 and (AVX2):

    64 ->  64 at 16x16    72 ->  45  ( 91 ->  69)
   128 -> 128 at 8x8      43 ->  40  ( 70 ->  63)
   256 -> 256 at 4x4      42 ->  53  ( 77 ->  74)
   512 -> 512 at 2x2      88 -> 166  (160 -> 200)
"""


@contextmanager
def laid_out(model: nn.Module, examples: Examples, *, wanted: bool = True) -> Iterator[None]:
    """Let the convolutions of a network on the CPU read channels-last maps where that is faster, within rounding.

    Weights stay as they are, and their gradients and momenta with them: a fused update, checkpoints and methods see no
    difference, and a convolution lays its small kernel out anew by itself. The examples say where the network computes,
    and how large its images are.

    Yields:
        Nothing.
    """
    worthwhile = wanted and examples.mean.device.type == "cpu" and min(examples.images.shape[-2:]) >= SMALLEST
    layers = image_convolutions(model) if worthwhile else []
    handles = [
        layer.register_forward_pre_hook(_channels_first if layer.out_channels >= WIDE else _channels_last)
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _channels_last(layer: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return _laid(inputs, torch.channels_last)


def _channels_first(layer: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return _laid(inputs, torch.contiguous_format)


def _laid(inputs: tuple[Any, ...], memory_format: torch.memory_format) -> tuple[Tensor] | None:
    """A batch of maps in that layout; what is no batch, or was given by keyword, stays."""
    batch = bool(inputs) and inputs[0].dim() == 4
    return (inputs[0].contiguous(memory_format=memory_format),) if batch else None
