"""From encoded images to one uint8 array: every mode, orientation and size that files come in."""

from __future__ import annotations

import io
import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from warmstart.decoding.bounds import require_memory
from warmstart.decoding.unreadable import may_pass, reading, unreadable
from warmstart.decoding.wanted import OnDecoded, Wanted
from warmstart.errors import InputError
from warmstart.launch import available_cores

_JPEG, _HEIF, _AVIF = (".jfif", ".jpe", ".jpeg", ".jpg"), (".heic", ".heif", ".hif"), (".avif",)
_HAS_HEIF, _HAS_AVIF = find_spec("pillow_heif") is not None, bool(features.check("avif"))
SUFFIXES = frozenset(
    (".bmp", ".gif", *_JPEG, ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
    + (_HEIF if _HAS_HEIF else ()) + (_AVIF if _HAS_AVIF else ())
)  # fmt: skip
"""Of the files that are read."""
_OTHERS = frozenset(
    (
        *_HEIF, *_AVIF,
        *(".arw", ".cr2", ".cr3", ".dcm", ".dds", ".dng", ".eps", ".exr", ".hdr", ".ico", ".j2k", ".jp2", ".jxl"),
        *(".nef", ".orf", ".pcx", ".psd", ".raf", ".raw", ".rw2", ".svg", ".svs", ".tga"),
    )
) - SUFFIXES  # fmt: skip
"""Of images that are not read."""
MAX_PIXELS = 64_000_000
MAX_SIDE = 20_000

# Only these decoders are tried: Pillow has others that start programs (EPS) or are not fuzz-tested.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP") + _HAS_AVIF * ("AVIF",) + _HAS_HEIF * ("HEIF",)
# Pillow releases the GIL in the codec only: below this size threads would slow each other down.
_THREAD_BYTES = 16 * 1024
_REPORT_EVERY = 100
_DEPTHS = (8, 10, 12, 14, 16)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints what its exceptions say too
if _HAS_HEIF:
    from pillow_heif import register_heif_opener

    register_heif_opener()

_LISTED = 50
"""Images that cannot be read are named up to so many."""

Pixels = NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) RGB."""
Encoded = tuple[int, str, Callable[[], bytes]]
"""An image's place, its name, and what reads its file."""


def is_image(name: str) -> bool:
    """Whether a file's name has the suffix of an image format that is read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def not_read(names: Iterable[str]) -> str:
    """What of these files look like images but are not read, and the remedy; empty if there are none."""
    others = [name for name in names if PurePosixPath(name).suffix.lower() in _OTHERS]
    if not others:
        return ""
    suffixes = sorted({PurePosixPath(name).suffix.lower() for name in others})
    remedies = ["pip install pillow-heif"] if not set(_HEIF).isdisjoint(suffixes) else []
    remedies += ["convert them to PNG or JPEG"]
    files = f"{len(others)} files are" if len(others) > 1 else "1 file is"
    return f"{files} not read ({', '.join(suffixes)}), such as {others[0]}; {' or '.join(remedies)}"


def depth_of(top: int) -> int:
    """The fewest usual bits that hold a value: 12 for 4095."""
    return next(bits for bits in _DEPTHS if top < 2**bits)


def decode_images(encoded: Callable[[], Iterable[Encoded]], stack: ImageStack, wanted: Wanted) -> None:
    """Decode images onto a stack, beginning after those that it has.

    Images of 16 bits are brought to 8 by one rule for all: white is the largest value of the fewest bits (8, 10, 12, 14
    or 16) that hold the largest value of any, unless it is given. That is known at the end; if it is not 16, all are
    decoded once more.
    """
    if wanted.bits is not None:
        stack.bits = wanted.bits
    _decode(encoded(), stack, wanted)
    if wanted.bits is None and stack.bits > (bits := depth_of(stack.top)) and stack.top:
        stack.begin_again(bits)
        _decode(encoded(), stack, wanted)


def _decode(encoded: Iterable[Encoded], stack: ImageStack, wanted: Wanted) -> None:
    workers = available_cores()
    pending: deque[tuple[int, str, Future[tuple[Pixels, int]]]] = deque()
    done, bits = stack.done, stack.bits
    with ThreadPoolExecutor(workers) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that is none to the pixels
        # Pillow's own guard only warns at first; here it is an error that names the image.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for count, (index, name, read) in enumerate(encoded):
            if count < done:
                continue
            future: Future[tuple[Pixels, int]] = Future()
            try:
                content = read()
                if len(content) < _THREAD_BYTES:
                    future.set_result(decode(content, name, wanted, bits))
                else:
                    future = pool.submit(decode, content, name, wanted, bits)
            except InputError as error:
                future.set_exception(error)
            pending.append((index, name, future))
            if len(pending) > 4 * workers:
                _put_next(stack, pending)
        while pending:
            _put_next(stack, pending)


def _put_next(stack: ImageStack, pending: deque[tuple[int, str, Future[tuple[Pixels, int]]]]) -> None:
    index, name, decoded = pending.popleft()
    try:
        pixels, top = decoded.result()
    except InputError as error:
        stack.leave_out(index, name, error)
    else:
        stack.put(index, name, pixels, top)


def decode(content: bytes, name: str, wanted: Wanted, bits: int = 16) -> tuple[Pixels, int]:
    """Decode an image file, called ``name`` in errors: (H, W) if it is grey, else (H, W, 3).

    Returns:
        The pixels, and the largest value where it had 16 bits, else 0.

    Raises:
        InputError: If it is damaged, too large, or not an image of a format that is read.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_extent(image, name)
            if wanted.size:
                # A JPEG far larger than wanted is decoded at a fraction, never below twice the wanted size.
                height, width = wanted.size
                image.draft(None, (2 * width, 2 * height))
            return pixels(image, name, wanted, bits)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        reason = not_read([name]) or "not an image of a known format; replace or remove it"
        raise InputError(f"{name}: {reason}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name}: {_TOO_LARGE}") from error
    except Exception as error:  # damaged files make Pillow raise exceptions of many kinds
        raise InputError(unreadable(name, error)) from error


_TOO_LARGE = f"image too large (the limit is {MAX_PIXELS // 1_000_000} megapixels, {MAX_SIDE} a side); remove it"


def _check_extent(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise InputError(f"{name}: {height}x{width}, {_TOO_LARGE}")


def pixels(image: Image.Image, name: str, wanted: Wanted, bits: int = 16) -> tuple[Pixels, int]:
    """Return an image of any mode in 8 bits and upright, and the largest value where it had 16 bits, else 0.

    (H, W) if it is grey, else (H, W, 3). Transparent parts show white; of ``bits`` bits the upper 8 stay; 32-bit values
    have no fixed range and are refused.
    """
    ImageOps.exif_transpose(image, in_place=True)
    grey, top = image.mode in {"1", "L", "LA", "La"}, 0
    if image.mode.startswith(("I", "F")):
        (image, top), grey = _from_sixteen_bits(image, name, bits), True
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    mode = "L" if grey else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    return np.asarray(wanted.fitted(image)), top


def _from_sixteen_bits(image: Image.Image, name: str, bits: int) -> tuple[Image.Image, int]:
    # Pillow opens some 16-bit PNG and PGM files in its 32-bit mode I.
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"})):
        raise InputError(f"{name}: 32-bit pixels (mode {image.mode}) have no fixed range; convert it to 8 bits")
    values = np.asarray(image)
    if image.format == "PPM":  # it states its largest value, to which Pillow scales
        return Image.fromarray((values >> 8).astype(np.uint8)), 2**16 - 1
    eight = np.minimum(values >> (bits - 8), 255)  # where bits are given, a later image may be brighter than white
    return Image.fromarray(eight.astype(np.uint8)), max(1, int(values.max()))


class Unread(NamedTuple):
    """An image that cannot be read."""

    name: str
    reason: str
    may_pass: bool = False
    """Whether it may be readable another time."""


class ImageStack:
    """Images of one size, filled in any order, in one array that is allocated once."""

    def __init__(self, total: int, progress: OnDecoded | None = None) -> None:
        self.total = total
        self.done = 0
        """Images that were put or left out."""
        self.bits, self.top = 16, 0
        """Of images of 16 bits: how many are in use, and the largest value so far; 0 without such images."""
        self.unreadable: dict[int, Unread] = {}
        """By place."""
        self._progress = progress
        self._array: NDArray[np.uint8] | None = None
        self._first = ""

    def begin_again(self, bits: int) -> None:
        """Let all images be put once more, of so many bits."""
        self.done, self.bits, self.unreadable = 0, bits, {}

    def put(self, index: int, name: str, image: Pixels, top: int = 0) -> None:
        """Store an image, (H, W) or (H, W, 3), at ``index``; all must be of the first one's size."""
        array = self._array if self._array is not None else self._allocate(name, image)
        if image.shape[:2] != array.shape[2:]:
            raise InputError(
                f"images differ in size (height x width): {name} is {_extent(image.shape)}, "
                f"{self._first} is {_extent(array.shape[2:])}; give --image-size N or HxW to resize all"
            )
        if image.ndim == 3 and array.shape[1] == 1:  # the first image in colour: all become so
            grey, shape = array, (self.total, 3, *array.shape[2:])
            array = self._array = self._new(f"{self.total} images of {_extent(image.shape)}", shape)
            array[:] = grey
        array[index] = image if image.ndim == 2 else image.transpose(2, 0, 1)
        self.top = max(self.top, top)
        self._count()

    def leave_out(self, index: int, name: str, error: InputError) -> None:
        """Note that the image at ``index`` cannot be read."""
        self.unreadable[index] = Unread(name, str(error), may_pass(error))
        self._count()

    def _count(self) -> None:
        self.done += 1
        if self._progress and (self.done % _REPORT_EVERY == 0 or self.done == self.total):
            self._progress(self.done, self.total)

    def _allocate(self, name: str, image: Pixels) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if 0 in image.shape:
            raise InputError(f"{name} has no pixels; remove it")
        channels = 1 if image.ndim == 2 else 3
        self._first = name
        what = f"{self.total} images of {_extent(image.shape)}"
        self._array = self._new(what, (self.total, channels, height, width))
        return self._array

    def _new(self, what: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Space for all images."""
        require_memory(what, int(np.prod(shape)), "give a smaller --image-size N")
        with reading(what, "give a smaller --image-size N"):
            return np.empty(shape, np.uint8)

    def check(self, where: str, skip_unreadable: bool) -> tuple[str, ...]:
        """Notes on what was read; InputError if some images could not be, unless they may be skipped."""
        count, notes = len(self.unreadable), []
        if count:
            names, (first, *_), _ = zip(*self.unreadable.values(), strict=True)
            if count == 1 and not skip_unreadable:
                raise InputError(f"{first}, or give --skip-unreadable")
            found = f"{count} of {self.total} images cannot be read"
            more = f" and {count - _LISTED} more" if count > _LISTED else ""
            reason = first.partition("; ")[0].removeprefix(f"{names[0]}: ")
            listed = f"{', '.join(names[:_LISTED])}{more} ({'the first: ' if count > 1 else ''}{reason})"
            if not skip_unreadable or count == self.total:
                remedy = "replace or remove them, or give --skip-unreadable"
                raise InputError(f"{where}: {found}: {listed}; {remedy}")
            notes.append(f"{found} and are left out: {listed}")
        if self.bits < 16:
            notes.append(f"images of 16 bits hold values up to {self.top}: white is {2**self.bits - 1} in all of them")
        return tuple(notes)

    def images(self) -> Tensor:
        """All images that could be read, uint8 (N, C, H, W), sharing the stack's memory; gaps are closed."""
        if self._array is None:
            return torch.empty(0, 1, 1, 1, dtype=torch.uint8)
        kept = [index for index in range(self.total) if index not in self.unreadable] if self.unreadable else []
        for place, index in enumerate(kept):
            if place != index:
                self._array[place] = self._array[index]
        return torch.from_numpy(self._array[: self.total - len(self.unreadable)])


def _extent(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
