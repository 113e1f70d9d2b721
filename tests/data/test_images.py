"""ImageData: statistics, fingerprint, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from warmstart.data.images import ImageData
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError


def random_data(channels: int = 3, train: int = 5000, size: int = 4) -> ImageData:
    generator = torch.Generator().manual_seed(1)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randint(256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
        return images, torch.randint(2, (count,), generator=generator)

    return ImageData("random", *part(train), *part(7), ("cat", "dog"))


def test_mean_and_std_are_those_of_the_float_images() -> None:
    data = random_data()
    images = data.train_images.double() / 255
    torch.testing.assert_close(data.channel_mean().double(), images.mean((0, 2, 3)), rtol=0, atol=1e-7)
    torch.testing.assert_close(data.channel_std().double(), images.std((0, 2, 3), correction=0), rtol=0, atol=1e-7)


def test_a_constant_channel_can_be_divided_by() -> None:
    data = random_data()
    data.train_images[:, 1] = 77
    assert data.channel_std()[1] == 1
    assert data.channel_mean()[1] == pytest.approx(77 / 255)
    assert data.channel_std()[0] < 0.5


def test_properties() -> None:
    data = random_data(channels=1, size=5)
    assert (data.channels, data.image_size, data.num_classes) == (1, 5, 2)


def test_fingerprint_is_the_content_s() -> None:
    data = random_data()
    assert data.fingerprint() == random_data().fingerprint() == replace(data, name="other").fingerprint()
    changed = [
        replace(data, train_images=data.train_images ^ (torch.arange(5000) == 4999)[:, None, None, None]),
        replace(data, test_labels=1 - data.test_labels),
        replace(data, classes=("cat", "cow")),
        replace(data, train_images=data.train_images.mT),
    ]
    assert len({data.fingerprint(), *(other.fingerprint() for other in changed)}) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": torch.zeros(7, 3, 4, 4)}, "torch.float32 7x3x4x4; images must be torch.uint8"),
        ({"train_labels": torch.zeros(3, dtype=torch.int64)}, "labels must be int64, one for each"),
        ({"train_labels": torch.full((5000,), 2)}, "the label 2, but there are 2 classes"),
        ({"test_images": torch.zeros(7, 3, 4, 6, dtype=torch.uint8)}, "training images are 3x4x4 .* test images 3x4x6"),
        ({"test_images": torch.zeros(7, 1, 4, 4, dtype=torch.uint8)}, "training images are 3x4x4 .* test images 1x4x4"),
        ({"test_labels": torch.zeros(0).long()}, "the test part has 7 images; its labels must be int64, one for each"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(random_data(), **changes)


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pillow_s_antialiased_bilinear(channels: int) -> None:
    images = random_data(channels, train=3, size=9).train_images
    resized = Wanted((4, 4)).all_fitted(images)
    assert resized.shape == (3, channels, 4, 4)
    plane = Image.fromarray(images[2, channels - 1].numpy()).resize((4, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(resized[2, channels - 1].numpy(), np.asarray(plane))
    assert Wanted((9, 9)).all_fitted(images) is Wanted().all_fitted(images) is images
