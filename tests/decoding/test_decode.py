"""Decoding: every mode, orientation and size; bombs and damage are named."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from made_images import encode, noise
from warmstart.decoding import decode as decoding
from warmstart.decoding.decode import ImageStack, Pixels, decode_images
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size that is but a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def decode(content: bytes, name: str, size: int | None = None) -> Pixels:
    return decoding.decode(content, name, Wanted(size and (size, size)))[0]


def stack(*images: Image.Image | bytes, wanted: Wanted | None = None) -> torch.Tensor:
    contents = [x if isinstance(x, bytes) else encode(x) for x in images]
    made = ImageStack(len(contents))
    encoded = [(i, f"{i}.png", (lambda x=x: x)) for i, x in enumerate(contents)]
    decode_images(lambda: encoded, made, wanted or Wanted())
    made.check("all", skip_unreadable=False)
    return made.images()


def test_colour_and_grey_come_back_as_they_are() -> None:
    colour, grey = noise(5, 0), noise(5, 1, "L")
    assert np.array_equal(decode(encode(colour), "x"), np.asarray(colour))
    assert np.array_equal(decode(encode(grey), "x"), np.asarray(grey))


def test_grey_images_become_colour_where_others_are() -> None:
    grey, colour = noise(5, 0, "L"), noise(5, 1)
    assert stack(grey, grey).shape == (2, 1, 5, 5)
    images = stack(grey, colour, grey)
    assert images.shape == (3, 3, 5, 5)
    for i in (0, 2):
        assert np.array_equal(images[i].numpy(), np.stack([np.asarray(grey)] * 3))
    assert np.array_equal(images[1].permute(1, 2, 0).numpy(), np.asarray(colour))


def pixel(mode: str, value: object, kind: str = "PNG") -> list[int]:
    return np.ravel(decode(encode(Image.new(mode, (2, 2), value), kind), "x")[0, 0]).tolist()


@pytest.mark.parametrize(
    ("mode", "value", "kind", "expected"),
    [
        ("1", 1, "PNG", [255]),
        ("LA", (40, 255), "PNG", [40]),
        ("LA", (40, 0), "PNG", [255]),
        ("RGBA", (10, 20, 30, 255), "PNG", [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), "PNG", [255, 255, 255]),
        ("RGBA", (0, 0, 0, 51), "PNG", [204, 204, 204]),
        ("CMYK", (0, 0, 0, 0), "TIFF", [255, 255, 255]),
        ("CMYK", (255, 0, 0, 0), "TIFF", [0, 255, 255]),
        ("I;16", 0xAB12, "PNG", [0xAB]),
        ("I;16", 0xAB12, "TIFF", [0xAB]),
        ("I", 0x7F00, "PPM", [0x7F]),
    ],
)
def test_every_mode_becomes_eight_bits_of_grey_or_rgb(mode: str, value: object, kind: str, expected: list[int]) -> None:
    assert pixel(mode, value, kind) == expected


def test_a_palette_is_looked_up_and_its_transparent_entry_shows_white() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50, 9, 9, 9])
    image.putpixel((0, 0), 2)
    decoded = decode(encode(image, transparency=2), "x")
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[1, 1].tolist() == [200, 100, 50]
    assert decode(encode(image, "GIF"), "x")[0, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70000)])
def test_values_without_a_range_are_refused(mode: str, value: float) -> None:
    with pytest.raises(InputError, match=r"scan.tif: 32-bit pixels"):
        decode(encode(Image.new(mode, (2, 2), value), "TIFF"), "scan.tif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photo_is_turned_upright(kind: str) -> None:
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    decoded = decode(encode(image, kind, exif=exif), "x")
    assert decoded[0, 0, 0] < 10
    assert decoded[7, 0, 0] > 245


def test_image_size_stretches_all() -> None:
    wide, tall = noise(4, 0, width=10), noise(12, 1, width=3)
    images = stack(wide, tall, wanted=Wanted((6, 6)))
    assert images.shape == (2, 3, 6, 6)
    expected = np.asarray(wide.resize((6, 6), Image.Resampling.BILINEAR))
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), expected)


def test_a_large_photo_is_resized_as_if_it_were_decoded_in_full() -> None:
    image = noise(12, 0).resize((600, 600), Image.Resampling.BICUBIC)
    content = encode(image, "JPEG", quality=95)
    full = np.asarray(Image.fromarray(decode(content, "x")).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(decode(content, "x", 32).astype(int) - full).mean() < 1.5


def test_images_of_different_sizes_are_both_named() -> None:
    with pytest.raises(
        InputError, match=r"differ in size .height x width.: 1.png is 7x7, 0.png is 5x5; give --image-size"
    ):
        stack(noise(5, 0), noise(7, 1))


@pytest.mark.parametrize(
    ("width", "height"),
    [(8001, 8000), (10_000, 10_000), (60_000, 60_000), (20_001, 10), (10, 20_001)],
)
def test_absurd_sizes_are_refused_before_they_are_unpacked(width: int, height: int) -> None:
    with pytest.raises(InputError, match=r"0.png: .*image too large .the limit is 64 megapixels, 20000 a side"):
        stack(png_header(width, height))


def test_damaged_images_are_named() -> None:
    whole = encode(noise(64, 0), "JPEG")
    for content in (whole[:1000], whole[:10], b"", b"hello", png_header(8, 8), encode(noise(9, 0))[:-40]):
        with pytest.raises(InputError, match=r"^0\.png: [^\n]*; replace or remove it, or give --skip-unreadable$"):
            stack(content)


def test_formats_that_start_programs_are_never_tried() -> None:
    with pytest.raises(InputError, match="not an image of a known format"):
        stack(encode(noise(8, 0), "EPS"))


def test_order_is_kept_whatever_thread_is_first() -> None:
    images = [noise(100 if i % 3 else 6, i).resize((100, 100), Image.Resampling.NEAREST) for i in range(60)]
    places = np.random.default_rng(0).permutation(60).tolist()
    calls: list[tuple[int, int]] = []
    encoded = [(i, str(i), (lambda i=i: encode(images[i]))) for i in places]
    made = ImageStack(60, lambda done, total: calls.append((done, total)))
    decode_images(lambda: encoded, made, Wanted())
    expected = np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)
    assert np.array_equal(made.images().numpy(), expected)
    assert calls == [(60, 60)]


def test_more_than_the_memory_is_refused() -> None:
    with pytest.raises(InputError, match="GB of memory; give a smaller --image-size"):
        decode_images(lambda: [(0, "0.png", lambda: encode(noise(100, 0)))], ImageStack(10**12), Wanted())
