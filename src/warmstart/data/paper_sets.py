"""The four data sets of the paper's tables: where the hub has them, what they are called on disk, how large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PaperData:
    """One of the data sets that the paper's tables were measured on."""

    hub: str
    """As `load` takes it: ``hf:NAME`` or ``hf:NAME:CONFIG``."""
    image_column: str
    label_column: str
    originals: tuple[str, ...]
    """The folder, file or archive that it is downloaded as, in the order in which they are looked for."""
    image_size: int
    num_classes: int
    train_examples: int
    test_examples: int


PAPER_DATA: Mapping[str, PaperData] = MappingProxyType(
    {
        "cifar10": PaperData(
            "hf:uoft-cs/cifar10", "img", "label",
            ("cifar-10-batches-py", "cifar-10-python.tar.gz"), 32, 10, 50_000, 10_000,
        ),
        "cifar100": PaperData(
            "hf:uoft-cs/cifar100", "img", "fine_label",
            ("cifar-100-python", "cifar-100-python.tar.gz"), 32, 100, 50_000, 10_000,
        ),
        "svhn": PaperData(
            "hf:ufldl-stanford/svhn:cropped_digits", "image", "label",
            ("train_32x32.mat",), 32, 10, 73_257, 26_032,
        ),
        "tiny-imagenet": PaperData(
            "hf:zh-plus/tiny-imagenet", "image", "label",
            ("tiny-imagenet-200", "tiny-imagenet-200.zip"), 64, 200, 100_000, 10_000,
        ),
    }
)  # fmt: skip

TINY = "tiny-imagenet"
