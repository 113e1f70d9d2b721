import pytest
import torch
from torch import nn

from warmstart.errors import InputError
from warmstart.layers.norms import batch_norms
from warmstart.models.factory import check_factory


def make(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


def test_a_good_factory_passes_and_the_random_state_stays():
    torch.manual_seed(0)
    before = torch.get_rng_state()

    check_factory(make, 10, 3, 8)

    assert torch.equal(torch.get_rng_state(), before)


def test_the_random_state_stays_even_where_the_factory_reseeds():
    def reseeding(*sizes):
        torch.manual_seed(2021)
        return make(*sizes)

    torch.manual_seed(0)
    before = torch.get_rng_state()

    check_factory(reseeding, 10, 3, 8)

    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_called_with_the_runs_sizes():
    seen = []

    def spying(*sizes):
        seen.append(sizes)
        return make(*sizes)

    check_factory(spying, 7, 3, 12)

    assert set(seen) == {(7, 3, 12)}


SHARED = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: None, r"called as factory\(10, 3, 8\) .* it raised TypeError: .*positional"),
        (lambda *_: None, "it returned NoneType, not a torch.nn.Module"),
        (lambda *_: nn.Linear, "it returned type, not a torch.nn.Module"),
        (lambda *_: nn.Flatten(), "no trainable parameter"),
        (lambda *_: make(10, 3, 8).requires_grad_(False), "no trainable parameter"),
        (lambda *_: SHARED, "two calls returned networks that share weights"),
        (lambda *_: make(10, 3, 32), r"cannot read images of shape \(2, 3, 8, 8\): RuntimeError"),
        (lambda *_: make(1000, 3, 8), r"has shape \(2, 1000\); 10 classes need a tensor of shape \(2, 10\)"),
        (lambda *_: nn.Conv2d(3, 10, 3), r"has shape \(2, 10, 6, 6\); 10 classes need"),
        (lambda *_: nn.LSTM(8, 10), "model mine: "),
    ],
)
def test_what_is_wrong_is_one_clear_line(factory, message):
    with pytest.raises(InputError, match=message) as caught:
        check_factory(factory, 10, 3, 8, name="mine")
    assert str(caught.value).startswith("model mine: ")
    assert "\n" not in str(caught.value)


def test_a_network_that_returns_several_things_is_refused():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make(10, 3, 8)

        def forward(self, images):
            return self.net(images), images

    with pytest.raises(InputError, match="has type tuple; 10 classes need"):
        check_factory(lambda *_: Pair(), 10, 3, 8)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.BatchNorm1d(2), True),
        (nn.BatchNorm3d(2), True),
        (nn.SyncBatchNorm(2), True),
        (nn.InstanceNorm2d(2), False),
        (nn.GroupNorm(1, 2), False),
        (nn.LayerNorm(2), False),
    ],
)
def test_batch_norm_is_found_at_any_depth(layer, expected):
    assert bool(batch_norms(nn.Sequential(nn.Sequential(layer)))) is expected
