import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from warmstart.models.small_cnn import small_cnn


@pytest.mark.parametrize(
    ("image_size", "channels", "widths", "strides", "last_side"),
    [
        (8, 1, (16, 32, 64), (1, 2, 2), 2),
        (15, 3, (16, 32, 64), (1, 2, 2), 4),
        (16, 3, (32, 64, 128), (2, 2, 2), 2),
        (28, 1, (32, 64, 128), (2, 2, 2), 4),
        (32, 3, (32, 64, 128), (2, 2, 2), 4),
        (64, 3, (32, 64, 128), (2, 2, 2), 4),
        (50, 3, (32, 64, 128), (2, 2, 2), 4),
    ],
)
def test_widths_and_strides_follow_the_image_size(image_size, channels, widths, strides, last_side):
    model = small_cnn(10, channels, image_size)

    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert tuple(conv.out_channels for conv in convolutions) == widths
    assert tuple(conv.stride[0] for conv in convolutions) == strides
    assert model.classifier.in_features == widths[-1] * last_side**2
    assert model(torch.zeros(2, channels, image_size, image_size)).shape == (2, 10)


def test_parameters_number_what_theory_says():
    digits = 9 * (1 * 16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + (64 * 2 * 2 * 10 + 10)
    cifar = 9 * (3 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + (128 * 4 * 4 * 10 + 10)

    assert sum(p.numel() for p in small_cnn(10, 1, 8).parameters()) == digits == 25_978
    assert sum(p.numel() for p in small_cnn(10, 3, 32).parameters()) == cifar == 113_962


def test_multiplications_number_what_theory_says():
    # Convolutions on maps of 16x16, 8x8 and 4x4, then the linear layer.
    macs = 9 * (3 * 32 * 16**2 + 32 * 64 * 8**2 + 64 * 128 * 4**2) + 2048 * 10

    with FlopCounterMode(display=False) as counter:
        small_cnn(10, 3, 32).eval()(torch.zeros(1, 3, 32, 32))

    assert counter.get_total_flops() == 2 * macs


def test_a_larger_map_is_averaged_down():
    torch.manual_seed(0)
    model = small_cnn(5, 3, 64).eval()
    images = torch.randn(2, 3, 64, 64)

    # An 8x8 map (the layers before the pooling) becomes 4x4 means of 2x2 positions.
    maps = model.features[:-1](images)
    means = maps.reshape(2, 128, 4, 2, 4, 2).mean(dim=(3, 5))

    torch.testing.assert_close(model(images), model.classifier(means.flatten(1)))
