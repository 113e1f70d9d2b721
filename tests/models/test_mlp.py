import pytest
import torch
from torch import nn

from warmstart.models.mlp import mlp


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (2, (3072 + 1) * 1000 + 2 * 1000 + (1000 + 1) * 10),
        (3, (3072 + 1) * 1000 + 2 * 1000 + (1000 + 1) * 1000 + 2 * 1000 + (1000 + 1) * 10),
    ],
)
def test_parameters_number_what_theory_says(depth, expected):
    assert sum(p.numel() for p in mlp(10, 3, 32, depth=depth).parameters()) == expected


def test_default_is_the_papers_three_layers_of_width_1000():
    linear = [m for m in mlp(7, 1, 8).modules() if isinstance(m, nn.Linear)]

    assert [(m.in_features, m.out_features) for m in linear] == [(64, 1000), (1000, 1000), (1000, 7)]


def test_batch_norm_lies_between_linear_and_relu_but_not_after_the_last():
    kinds = [type(module).__name__ for module in mlp(10, 1, 8, width=4, depth=3)]

    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert mlp(10, 1, 8, width=4)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
