"""The settings that say which images are read, and how."""

from __future__ import annotations

from typing import Annotated

from warmstart.settings import Setting, Settings

LARGEST_IMAGE = 4096
"""Far above what the networks here are made for; beyond it, a typing error."""


class DataSettings(Settings):
    """Labelled images."""

    data: Annotated[
        str,
        Setting(
            "digits; features-and-noise; images by class in folders or an archive; parquet; .npz; CIFAR, SVHN and "
            "Tiny-ImageNet as they are downloaded; hf:NAME",
            "NAME|PATH",
            example="some, or leave it out",
        ),
    ] = "digits"
    image_size: Annotated[
        int | None,
        Setting(
            "Resize images to N x N pixels",
            "N",
            at_least=1,
            at_most=LARGEST_IMAGE,
            remark=", all images lie in memory",
            default="as they are",
        ),
    ] = None
    image_column: Annotated[
        str | None, Setting("The images' column of a table", "NAME", default="by type, then by name")
    ] = None
    label_column: Annotated[
        str | None, Setting("The labels' column of a table", "NAME", default="by type, then by name")
    ] = None
