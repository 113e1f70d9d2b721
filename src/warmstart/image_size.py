"""The size of images: pixels a side, or height and width where they differ."""

ImageSize = int | tuple[int, int]
"""Pixels a side, or (height, width)."""


def height_and_width(image_size: ImageSize) -> tuple[int, int]:
    """Both sides of an image."""
    return image_size if isinstance(image_size, tuple) else (image_size, image_size)
