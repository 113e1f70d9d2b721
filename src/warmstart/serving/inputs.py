"""Images in any form that a caller has them in, as a network was trained on them: uint8 (N, C, H, W)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from warmstart.decoding.bounds import read_file
from warmstart.decoding.decode import ImageStack, decode_images
from warmstart.decoding.decode import pixels as upright_pixels
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError
from warmstart.image_size import height_and_width
from warmstart.serving.model_folder import ModelCard

Picture = str | Path | Image.Image | NDArray[np.uint8] | Tensor
"""One image: a file's path, a PIL image, or pixels."""
Images = Picture | Sequence[Picture]
"""One or many; an array or tensor of four dimensions holds many."""

_LUMA = (19595, 38470, 7471)
"""Of red, green and blue in grey, of 2^16 parts: ITU-R 601 as Pillow rounds it."""
_turn = threading.Lock()
"""While images are decoded, on all cores, Python's warnings are off for the whole process: one call at a time."""
_SHAPES = "(H, W), (N, H, W), (H, W, C), (C, H, W), (N, H, W, C) or (N, C, H, W), with 1 or 3 channels"


def to_pixels(images: Images, card: ModelCard) -> Tensor:
    """Read, turn upright and bring to the network's size and channels whatever images are given.

    Returns:
        uint8 (N, C, H, W).

    Raises:
        InputError: If there is no image, one cannot be read, or an array is of another type or shape.
    """
    if isinstance(images, (np.ndarray, Tensor)):
        return _of_the_cards_form(_batch(images, card.channels), card)
    pictures = [images] if isinstance(images, (str, Path, Image.Image)) else list(images)
    if not pictures:
        raise InputError("there are no images; give at least one")
    if all(isinstance(picture, (str, Path)) for picture in pictures):
        pixels, unreadable = decode_files([Path(str(picture)) for picture in pictures], card)
        if unreadable:
            raise InputError(next(iter(unreadable.values())))
        return pixels
    return torch.cat([_one(picture, card) for picture in pictures])


def decode_files(paths: Sequence[Path], card: ModelCard) -> tuple[Tensor, dict[int, str]]:
    """Decode image files, several at a time.

    Returns:
        uint8 (N, C, H, W), without those that cannot be read; place -> why not.
    """
    stack = ImageStack(len(paths))
    encoded = [(place, str(path), partial(read_file, path)) for place, path in enumerate(paths)]
    with _turn:
        decode_images(lambda: encoded, stack, _wanted(card))
    unreadable = {place: one.reason for place, one in sorted(stack.unreadable.items())}
    return _of_the_cards_form(stack.images(), card), unreadable


def no_pixels(card: ModelCard) -> Tensor:
    """Of no image: uint8 (0, C, H, W)."""
    return torch.empty(0, card.channels, *height_and_width(card.image_size), dtype=torch.uint8)


def _wanted(card: ModelCard) -> Wanted:
    return Wanted(height_and_width(card.image_size), card.fit, bits=card.bits)


def _one(picture: Picture, card: ModelCard) -> Tensor:
    """One image of a list, as a batch of one."""
    if isinstance(picture, Image.Image):
        pixels, _ = upright_pixels(picture.copy(), "an image", _wanted(card), card.bits)
        picture = np.array(pixels)
    if not isinstance(picture, (str, Path, np.ndarray, Tensor)):
        raise InputError(f"{picture!r:.40} is no image; give paths, PIL images, or arrays of uint8 pixels")
    found = to_pixels(picture, card)
    if len(found) > 1:
        raise InputError(f"an array of {len(found)} images is in a list of images; give each by itself, or it alone")
    return found


def _batch(images: NDArray[Any] | Tensor, channels: int) -> Tensor:
    """An array as uint8 (N, C, H, W) on the CPU."""
    given = images.detach().cpu() if isinstance(images, Tensor) else images
    shape, kind = tuple(given.shape), str(given.dtype).removeprefix("torch.")
    if kind != "uint8":
        raise InputError(f"images are {kind}; give uint8, 0 to 255, as pixels are before anything is normalised")
    pixels = given if isinstance(given, Tensor) else torch.from_numpy(np.require(given, requirements=["C", "W"]))
    if pixels.dim() == 2:
        pixels = pixels[None, None]
    elif pixels.dim() == 3 and shape[-1] in {1, 3}:
        pixels = pixels.permute(2, 0, 1)[None]
    elif pixels.dim() == 3 and shape[0] == channels == 3:  # for a grey network these are three images
        pixels = pixels[None]
    elif pixels.dim() == 3:
        pixels = pixels[:, None]
    elif pixels.dim() == 4 and shape[-1] in {1, 3}:
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.dim() != 4 or pixels.shape[1] not in {1, 3} or 0 in shape:
        raise InputError(f"images have the shape {shape}; give {_SHAPES}, at least one image")
    return pixels.contiguous()


def _of_the_cards_form(pixels: Tensor, card: ModelCard) -> Tensor:
    """Bring pixels to the network's size, and between grey and colour."""
    if len(pixels) == 0:
        return no_pixels(card)
    fitted = _wanted(card).all_fitted(pixels)
    if fitted.shape[1] < card.channels:
        return fitted.repeat(1, card.channels, 1, 1)
    if fitted.shape[1] > card.channels:
        weights = torch.tensor(_LUMA, dtype=torch.int32).view(3, 1, 1)
        return (((fitted.int() * weights).sum(1, keepdim=True) + 2**15) >> 16).to(torch.uint8)
    return fitted
