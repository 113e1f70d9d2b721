"""The four data sets of the paper's tables: where the hub has them, what they are called on disk, how large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Constants = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of each channel, of images in [0, 1]."""


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
    constants: Constants | None = None
    """What the authors' code normalises by; None: by the training part's own mean and standard deviation."""


PAPER_DATA: Mapping[str, PaperData] = MappingProxyType(
    {
        "cifar10": PaperData(
            "hf:uoft-cs/cifar10", "img", "label",
            ("cifar-10-batches-py", "cifar-10-python.tar.gz"), 32, 10, 50_000, 10_000,
            ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
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
            ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ),
    }
)  # fmt: skip

TINY = "tiny-imagenet"
