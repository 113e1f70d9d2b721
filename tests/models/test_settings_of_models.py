"""Norms and activations as settings of the networks, in brackets as methods have theirs."""

import sys

import pytest
import torch
from torch import nn

from commands import SMALL, rows, warmstart
from warmstart.errors import InputError
from warmstart.layers.activations import CReLU
from warmstart.layers.norms import batch_norms, has_norm
from warmstart.models.factory import check_factory
from warmstart.models.registry import input_range, model_factory


def made(text, size=32):
    with torch.device("meta"):
        return model_factory(text)(10, 3, size)


def kinds(model):
    return {type(layer) for layer in model.modules()}


@pytest.mark.parametrize("name", ["small-cnn", "mlp", "resnet18", "vgg16"])
def test_layer_norm_stands_where_batch_norm_stood_with_as_many_parameters(name):
    usual, model = made(name), made(f"{name}[norm=layer]")
    assert batch_norms(usual)
    assert not batch_norms(model)
    assert kinds(model) & {nn.GroupNorm, nn.LayerNorm}
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in usual.named_parameters()}


@pytest.mark.parametrize("name", ["small-cnn", "mlp", "vgg16"])
def test_without_norms_every_layer_has_a_bias(name):
    model = made(f"{name}[norm=none]")
    assert not has_norm(model)
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def test_layer_norm_of_maps_is_over_all_units_of_an_example():
    torch.manual_seed(0)
    model = model_factory("small-cnn[norm=layer]")(10, 3, 32)
    seen = []
    model.features[1].register_forward_hook(lambda layer, args, output: seen.append((args[0], output.clone())))
    model(torch.randn(4, 3, 32, 32))
    ((inputs, output),) = seen
    flat = inputs.flatten(1)
    mean, variance = flat.mean(1), flat.var(1, unbiased=False)
    expected = (flat - mean[:, None]) / (variance[:, None] + 1e-5).sqrt()
    torch.testing.assert_close(output.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_crelu_is_both_halves_and_the_next_layer_reads_as_much_as_before():
    x = torch.tensor([[-1.0, 2.0]])
    assert CReLU()(x).tolist() == [[0.0, 2.0, 1.0, 0.0]]
    assert CReLU()(torch.zeros(2, 3, 4, 5)).shape == (2, 6, 4, 5)
    usual, model = made("small-cnn"), made("small-cnn[activation=crelu]")
    for ours, theirs in zip(model.features, usual.features, strict=True):
        if isinstance(ours, nn.Conv2d):
            assert (ours.in_channels, 2 * ours.out_channels) == (theirs.in_channels, theirs.out_channels)
    assert model.classifier.in_features == usual.classifier.in_features


@pytest.mark.parametrize(
    "text",
    [
        *(
            "small-cnn[norm=layer,activation=crelu]",
            "small-cnn[norm=none]",
            "mlp[activation=crelu,norm=layer,width=20]",
        ),
        *("mlp[depth=1]", "resnet18[width=4,norm=layer]", "resnet18[width=4,max_pool=false,fan_out_init=false]"),
    ],
)
def test_each_passes_the_check_on_digits(text):
    check_factory(model_factory(text), 10, 1, 8, name=text)


def test_settings_that_are_not_given_leave_the_network_as_it_was():
    torch.manual_seed(1)
    usual = model_factory("small-cnn")(10, 1, 8)
    torch.manual_seed(1)
    same = model_factory("small-cnn[norm=batch,activation=relu]")(10, 1, 8)
    for ours, theirs in zip(same.parameters(), usual.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert input_range("mlp[norm=layer]") == "unit"


WRONG = [
    ("small-cnn[norm=layr]", "small-cnn[norm] is 'layr'; it must be batch or layer or none"),
    ("small-cnn[nrm=layer]", "small-cnn has no setting 'nrm'; did you mean 'norm'?"),
    ("small-cnn[norm=layer", "has no closing bracket; write small-cnn[setting=value]"),
    ("small-cnn[norm]", "small-cnn has no setting 'norm'"),
    ("resnet18[norm=none]", "resnet18[norm] is 'none'; it must be batch or layer"),
    ("resnet18[activation=crelu]", "resnet18 has no setting 'activation'"),
    ("resnet18[width=x]", "resnet18[width] is 'x'; it must be int"),
    ("mlp[width=1,width=2]", "sets width twice"),
    ("resnt18[width=4]", "unknown model 'resnt18'"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_is_wrong_is_one_clear_line(text, message):
    with pytest.raises(InputError) as refused:
        model_factory(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("mlp[activation=crelu,width=7]", "width is 7; with crelu"), ("resnet18[width=0]", "width is 0")],
)
def test_values_out_of_range_are_refused_when_it_is_made(text, message):
    with pytest.raises(InputError, match=message):
        model_factory(text)(10, 1, 8)


def test_a_users_own_factory_takes_settings_by_its_further_arguments(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels, image_size, *, width: int = 4, slope=0.1):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.LeakyReLU(slope), nn.Linear(width, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    model = model_factory("own_nets:net[width=6,slope=0.5]")(3, 1, 8)
    assert model[1].out_features == 6
    assert model[2].negative_slope == 0.5
    with pytest.raises(InputError, match=r"own_nets:net has no setting 'widht'; did you mean 'width'\?"):
        model_factory("own_nets:net[widht=6]")
    sys.modules.pop("own_nets", None)


def test_compare_takes_them_and_refuses_wrong_ones_with_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = (*SMALL, "--methods", "cold,warm", "--seeds", "1", "--jobs", "1")
    assert warmstart("compare", *given, "--model", "small-cnn[norm=layer]", "--out", "out/layer") == 0
    assert {row["model"] for row in rows(tmp_path / "out" / "layer")} == {"small-cnn[norm=layer]"}
    capsys.readouterr()
    assert warmstart("compare", *given, "--model", "small-cnn[norm=layr]", "--out", "out/wrong") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "wrong").exists()
