"""From encoded images to one uint8 array: every mode, orientation and size that files come in."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from warmstart.data.bounds import require_memory
from warmstart.data.unreadable import reading, unreadable
from warmstart.errors import InputError

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)  # fmt: skip
MAX_PIXELS = 64_000_000
MAX_SIDE = 20_000

OnDecoded = Callable[[int, int], None]
"""Called with the number of images decoded so far and in all."""

# Only these decoders are tried: Pillow has others that start programs (EPS) or are not fuzz-tested.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Pillow releases the GIL in the codec only: below this size threads would slow each other down.
_THREAD_BYTES = 16 * 1024
_REPORT_EVERY = 100

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints what its exceptions say too

Pixels = NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) RGB."""


def decode_images(
    encoded: Iterable[tuple[int, str, bytes]],
    total: int,
    image_size: int | None = None,
    progress: OnDecoded | None = None,
) -> Tensor:
    """Return images decoded into one tensor, uint8 (total, C, H, W); C = 1 if all are grey, else 3.

    ``encoded`` gives (index, name, content of the file), in any order, every index below ``total`` once. Without
    ``image_size`` all images must be of one size.
    """
    stack = ImageStack(total, progress)
    workers = os.cpu_count() or 1
    pending: deque[tuple[int, str, Future[Pixels]]] = deque()
    with ThreadPoolExecutor(workers) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that is none to the pixels
        # Pillow's own guard only warns at first; here it is an error that names the image.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for index, name, content in encoded:
            if len(content) < _THREAD_BYTES:
                stack.put(index, name, decode(content, name, image_size))
                continue
            pending.append((index, name, pool.submit(decode, content, name, image_size)))
            if len(pending) > 4 * workers:
                _put_next(stack, pending)
        while pending:
            _put_next(stack, pending)
    return stack.images()


def _put_next(stack: ImageStack, pending: deque[tuple[int, str, Future[Pixels]]]) -> None:
    index, name, decoded = pending.popleft()
    stack.put(index, name, decoded.result())


def decode(content: bytes, name: str, image_size: int | None = None) -> Pixels:
    """Decode an image file, called ``name`` in errors: (H, W) if it is grey, else (H, W, 3)."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_extent(image, name)
            if image_size:
                # A JPEG far larger than wanted is decoded at a fraction, never below twice the wanted size.
                image.draft(None, (2 * image_size, 2 * image_size))
            return pixels(image, name, image_size)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image of a known format; replace or remove it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name}: {_TOO_LARGE}") from error
    except Exception as error:  # damaged files make Pillow raise exceptions of many kinds
        raise InputError(unreadable(name, error)) from error


_TOO_LARGE = f"image too large (the limit is {MAX_PIXELS // 1_000_000} megapixels, {MAX_SIDE} a side); remove it"


def _check_extent(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise InputError(f"{name}: {width}x{height}, {_TOO_LARGE}")


def pixels(image: Image.Image, name: str, image_size: int | None = None) -> Pixels:
    """Return an image of any mode in 8 bits and upright: (H, W) if it is grey, else (H, W, 3).

    Transparent parts show white; 16 bits keep the upper 8; 32-bit values have no fixed range and are refused.
    """
    ImageOps.exif_transpose(image, in_place=True)
    grey = image.mode in {"1", "L", "LA", "La"}
    if image.mode.startswith(("I", "F")):
        image, grey = _from_sixteen_bits(image, name), True
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    mode = "L" if grey else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if image_size and image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _from_sixteen_bits(image: Image.Image, name: str) -> Image.Image:
    # Pillow opens some 16-bit PNG and PGM files in its 32-bit mode I.
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"})):
        raise InputError(f"{name}: 32-bit pixels (mode {image.mode}) have no fixed range; convert it to 8 bits")
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


class ImageStack:
    """Images of one size, filled in any order, in one array that is allocated once."""

    def __init__(self, total: int, progress: OnDecoded | None = None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._array: NDArray[np.uint8] | None = None
        self._first = ""

    def put(self, index: int, name: str, image: Pixels) -> None:
        """Store an image, (H, W) or (H, W, 3), at ``index``; all must be square and of the first one's size."""
        array = self._array if self._array is not None else self._allocate(name, image)
        if image.shape[:2] != array.shape[2:]:
            raise InputError(
                f"images differ in size: {name} is {_extent(image.shape)}, "
                f"{self._first} is {_extent(array.shape[2:])}; give --image-size N to resize all"
            )
        if image.ndim == 3 and array.shape[1] == 1:  # the first image in colour: all become so
            array = self._array = np.repeat(array, 3, axis=1)
        array[index] = image if image.ndim == 2 else image.transpose(2, 0, 1)
        self._done += 1
        if self._progress and (self._done % _REPORT_EVERY == 0 or self._done == self._total):
            self._progress(self._done, self._total)

    def _allocate(self, name: str, image: Pixels) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if height == 0:
            raise InputError(f"{name} has no pixels; remove it")
        if height != width:
            raise InputError(f"{name} is {_extent(image.shape)}, not square; give --image-size N to resize all")
        channels = 1 if image.ndim == 2 else 3
        what, size = f"{self._total} images of {_extent(image.shape)}", self._total * channels * height * width
        require_memory(what, size, "give a smaller --image-size N")
        with reading(what, "give a smaller --image-size N"):
            self._array = np.empty((self._total, channels, height, width), np.uint8)
        self._first = name
        return self._array

    def images(self) -> Tensor:
        """All images, uint8 (total, C, H, W), sharing the stack's memory."""
        if self._array is None:
            return torch.empty(0, 1, 1, 1, dtype=torch.uint8)
        return torch.from_numpy(self._array)


def _extent(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
