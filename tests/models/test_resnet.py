import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from warmstart.models.resnet import resnet18


def _parameters(num_classes, in_channels, first=64):
    """The count by theory: 3x3 stem, two blocks a stage, a 1x1 projection where the width changes."""
    convolutions, norms = 9 * in_channels * first, first
    for inputs, width in [(first, first), (first, 2 * first), (2 * first, 4 * first), (4 * first, 8 * first)]:
        convolutions += 9 * (inputs * width + 3 * width * width)
        norms += 4 * width
        if inputs != width:
            convolutions += inputs * width
            norms += width
    return convolutions + 2 * norms + (8 * first + 1) * num_classes


@pytest.mark.parametrize("width", [16, 10])
def test_a_narrow_one_has_the_same_layers(width):
    narrow, full = resnet18(10, 3, 32, width=width), resnet18(10, 3, 32)

    assert sum(p.numel() for p in narrow.parameters()) == _parameters(10, 3, width)
    assert [name for name, _ in narrow.named_parameters()] == [name for name, _ in full.named_parameters()]
    assert narrow(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("num_classes", "in_channels"), [(10, 3), (100, 3), (10, 1)])
def test_parameters_number_what_theory_says(num_classes, in_channels):
    count = sum(p.numel() for p in resnet18(num_classes, in_channels, 32).parameters())

    assert count == _parameters(num_classes, in_channels)
    if (num_classes, in_channels) == (10, 3):
        assert count == 11_173_962


@pytest.mark.parametrize("max_pool", [True, False])
def test_multiplications_number_what_theory_says(max_pool):
    # At 32x32 without max-pool: stem, stage 1, three stages of equal cost, linear layer. The pool quarters stages.
    stem, first, other = 9 * 3 * 64 * 32**2, 4 * 9 * 64 * 64 * 32**2, (9 * (64 + 3 * 128) + 64) * 128 * 16**2
    macs = stem + (first + 3 * other) // (4 if max_pool else 1) + 512 * 10

    with FlopCounterMode(display=False) as counter:
        resnet18(10, 3, 32, max_pool=max_pool).eval()(torch.zeros(1, 3, 32, 32))

    assert counter.get_total_flops() == 2 * macs


def test_convolutions_start_at_kaiming_fan_out_and_norms_at_one_and_zero():
    torch.manual_seed(0)
    model = resnet18(10, 3, 32)

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            # 1,728 weights at least: the sample's std is within 3 standard errors, 5 %.
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.055)
            assert abs(module.weight.mean().item()) < 0.08 * math.sqrt(2 / fan_out)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()


def test_without_fan_out_init_pytorchs_uniform_distribution_stays():
    torch.manual_seed(0)
    weight = resnet18(10, 3, 32, fan_out_init=False).layer4[1].conv2.weight

    bound = 1 / math.sqrt(512 * 9)  # kaiming_uniform with a = sqrt(5)
    assert weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_a_block_adds_its_input_before_the_last_relu():
    torch.manual_seed(0)
    block = resnet18(10, 3, 32).eval().layer1[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 64, 8, 8)

    torch.testing.assert_close(block(x), x.relu())


def test_parameters_go_by_torchvisions_names():
    names = set(resnet18(10, 3, 32).state_dict())

    torchvisions = {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.weight",
        "layer4.1.bn2.num_batches_tracked",
        "fc.bias",
    }
    assert torchvisions <= names
    assert len(names) == 122  # as many as torchvision's resnet18


@pytest.mark.parametrize("image_size", [8, 28, 64])
def test_any_image_size_trains(image_size):
    model = resnet18(4, 1, image_size)

    loss = model(torch.randn(2, 1, image_size, image_size)).square().mean()
    loss.backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
