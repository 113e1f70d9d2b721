import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from warmstart.errors import InputError
from warmstart.models.vgg import vgg16

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vgg16(10, 3, 32)


def test_parameters_number_what_theory_says(model):
    convolutions = sum(9 * i * o + o for i, o in zip((3, *WIDTHS), WIDTHS, strict=False))
    classifier = (25088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 10

    count = sum(p.numel() for p in model.parameters())
    assert count == convolutions + 2 * sum(WIDTHS) + classifier == 134_309_962


def test_multiplications_number_what_theory_says():
    sides = (32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2)
    convolutions = sum(9 * i * o * side**2 for i, o, side in zip((3, *WIDTHS), WIDTHS, sides, strict=False))

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        vgg16(10, 3, 32).eval()(torch.zeros(1, 3, 32, 32))

    assert counter.get_total_flops() == 2 * (convolutions + 25088 * 4096 + 4096 * 4096 + 4096 * 10)


def test_initialisation_is_the_authors(model):
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (9 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.055)
            assert module.bias.eq(0).all()
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.02)
            assert module.bias.eq(0).all()


def test_small_images_reach_the_full_classifier_as_49_copies(model):
    model.eval()
    images = torch.randn(2, 3, 32, 32)

    features = model.features(images)
    assert features.shape == (2, 512, 1, 1)
    spread = features.expand(-1, -1, 7, 7).flatten(1)
    torch.testing.assert_close(model(images), model.classifier(spread))
    # Tiny-ImageNet's 2x2 map: what lies across the middle is the mean of both sides.
    assert model.avgpool(torch.arange(4.0).reshape(1, 1, 2, 2))[0, 0, 3].tolist() == [1.0] * 3 + [1.5] + [2.0] * 3


def test_images_too_small_for_five_poolings_are_refused():
    with pytest.raises(InputError, match=r"28x28 pixels leave nothing; resize them .*--image-size 32"):
        vgg16(10, 1, 28)
