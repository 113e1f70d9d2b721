import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import warmstart
from warmstart.errors import InputError
from warmstart.layers.neurons import Neurons, neurons
from warmstart.layers.norms import batch_norms, has_norm, is_norm
from warmstart.layers.output import output_layer

LAYERS = {
    # layer: {parameter: (neurons, weights in one)} by kernel, and by neuron where that is another split
    "linear": (nn.Linear(5, 3), {"weight": (3, 5), "bias": (1, 3)}, {}),
    "conv1d": (nn.Conv1d(4, 6, 3), {"weight": (24, 3), "bias": (1, 6)}, {"weight": (6, 12)}),
    "conv2d": (nn.Conv2d(4, 6, (3, 5)), {"weight": (24, 15), "bias": (1, 6)}, {"weight": (6, 60)}),
    "conv3d": (nn.Conv3d(4, 6, 2), {"weight": (24, 8), "bias": (1, 6)}, {"weight": (6, 32)}),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), {"weight": (12, 9), "bias": (1, 6)}, {"weight": (6, 18)}),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), {"weight": (4, 9)}, {"weight": (4, 9)}),
    "1x1": (nn.Conv2d(4, 6, 1), {"weight": (24, 1), "bias": (1, 6)}, {"weight": (6, 4)}),
    "1x1 of 1d": (nn.Conv1d(4, 6, 1, bias=False), {"weight": (24, 1)}, {"weight": (6, 4)}),
    "1x1 of 3d": (nn.Conv3d(4, 6, 1, bias=False), {"weight": (24, 1)}, {"weight": (6, 4)}),
    "1x1, grouped": (nn.Conv2d(4, 6, 1, groups=2, bias=False), {"weight": (12, 1)}, {"weight": (6, 2)}),
    "1x1, depthwise": (nn.Conv2d(4, 4, 1, groups=4, bias=False), {"weight": (4, 1)}, {"weight": (4, 1)}),
    "1x1, transposed": (nn.ConvTranspose2d(4, 6, 1, bias=False), {"weight": (24, 1)}, {"weight": (6, 4)}),
    "1x1, transposed, grouped": (
        nn.ConvTranspose1d(4, 6, 1, groups=2, bias=False),
        {"weight": (12, 1)},
        {"weight": (6, 2)},
    ),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), {"weight": (24, 9), "bias": (1, 6)}, {"weight": (6, 36)}),
    "transposed, grouped": (
        nn.ConvTranspose1d(4, 6, 3, groups=2),
        {"weight": (12, 3), "bias": (1, 6)},
        {"weight": (6, 6)},
    ),
    "bilinear": (nn.Bilinear(4, 5, 3), {"weight": (3, 20), "bias": (1, 3)}, {}),
    "embedding": (nn.Embedding(7, 3), {"weight": (7, 3)}, {}),
    "attention": (
        nn.MultiheadAttention(4, 2),
        {"in_proj_weight": (12, 4), "in_proj_bias": (1, 12), "out_proj.weight": (4, 4), "out_proj.bias": (1, 4)},
        {},
    ),
    "lstm": (
        nn.LSTM(3, 2),
        {"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 2), "bias_ih_l0": (1, 8), "bias_hh_l0": (1, 8)},
        {},
    ),
}
INPUTS = {nn.Linear: (5,), nn.ConvTranspose1d: (4, 5), nn.ConvTranspose2d: (4, 5, 5)}
INPUTS |= {nn.Conv1d: (4, 5), nn.Conv2d: (4, 5, 5), nn.Conv3d: (4, 5, 5, 5)}


def splits(model, granularity="kernel"):
    return {entry.name: (entry.count, entry.size) for entry in neurons(model, granularity)[0]}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_splits_into_its_neurons(name):
    layer, by_kernel, by_neuron = LAYERS[name]
    assert splits(layer, "kernel") == by_kernel
    assert splits(layer, "neuron") == {**by_kernel, **by_neuron}
    assert splits(layer, "kernel-or-row") == (splits(layer, "neuron") if "1x1" in name else by_kernel)


@pytest.mark.parametrize("name", [name for name, row in LAYERS.items() if type(row[0]) in INPUTS])
def test_a_neuron_of_a_weight_is_one_channel_of_the_output(name):
    layer = LAYERS[name][0]
    inputs = torch.randn(1, *INPUTS[type(layer)])
    weight = next(entry for entry in neurons(layer, "neuron")[0] if entry.name == "weight")
    others = [d for d in range(weight.view(layer.weight).dim()) if d not in weight.dims]
    for number in range(weight.count):
        nudge = torch.zeros_like(layer.weight)
        index = torch.unravel_index(torch.tensor(number), [weight.view(nudge).shape[d] for d in others])
        where = [slice(None)] * weight.view(nudge).dim()
        for dimension, at in zip(others, index, strict=True):
            where[dimension] = int(at)
        weight.view(nudge)[tuple(where)] = 1.0
        changed = torch.func.functional_call(layer, {"weight": layer.weight + nudge}, inputs) - layer(inputs)
        by_channel = changed.flatten(2).abs().sum((0, 2)) if changed.dim() > 2 else changed.abs().sum(0)
        assert by_channel.nonzero().flatten().tolist() == [number]


def test_subclasses_split_like_their_parents():
    class Mine(nn.Conv2d):
        pass

    (weight, bias), _ = neurons(Mine(2, 3, 3))
    assert (weight.kind, weight.dims, bias.dims) == ("Mine", (2, 3), (0,))


def test_names_and_order_are_those_of_named_parameters():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3)), nn.Linear(3, 2))
    found, left = neurons(model)
    order = [name for name, _ in model.named_parameters()]
    assert [entry.name for entry in found] == [name for name in order if not name.startswith("1.0")]
    assert [entry.name for entry in left] == ["1.0.weight", "1.0.bias"]
    assert all(entry.parameter is model.get_parameter(entry.name) for entry in found)


def test_shared_weights_appear_once_with_the_first_layer_that_has_them():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    model["again"] = model["a"]
    assert [entry.name for entry in neurons(model)[0]] == ["a.weight", "a.bias", "b.bias"]


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 3))
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.known = nn.Linear(2, 2)


def left_alone(model, **arguments):
    return {entry.name: entry.reason for entry in neurons(model, **arguments)[1]}


def test_what_is_left_alone_says_why():
    for name in ("table", "gain"):
        assert left_alone(Unknown())[name].startswith(f"no rule for Unknown.{name}")
    frozen = nn.Linear(2, 2)
    frozen.bias.requires_grad_(False)
    assert left_alone(frozen) == {"bias": "frozen (requires_grad is False)"}
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.complex64), nn.LayerNorm(2))
    assert left_alone(mixed) == {
        **dict.fromkeys(("1.weight", "1.bias"), "complex numbers"),
        **dict.fromkeys(("2.weight", "2.bias"), "norm layer"),
    }


def test_layers_without_elements_are_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of the empty tensors that this is about
        model = nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 0))
    assert [entry.name for entry in neurons(model)[0]] == ["0.bias"]
    assert set(left_alone(model).values()) == {"holds no elements"}


def test_filter_fn_is_asked_with_each_layer_and_its_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    asked = []

    def second_only(layer, name):
        asked.append((layer, name))
        return name == "1.0"

    found, left = neurons(model, filter_fn=second_only)
    assert [entry.name for entry in found] == ["1.0.weight", "1.0.bias"]
    assert {entry.reason for entry in left} == {"excluded by filter_fn"}
    assert all(model.get_submodule(name) is layer for layer, name in asked)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)), "1.weight has no shape yet.*run the network once"),
        (nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d()), "1.weight has no shape yet"),
        (nn.Linear(2, 2, device="meta"), "weight is on the meta device"),
        (nn.ReLU(), "it has no parameters"),
        (nn.LayerNorm(3), "weight: norm layer; bias: norm layer"),
        (nn.Linear(2, 2).requires_grad_(False), "frozen.*unfreeze"),
    ],
    ids=["lazy", "lazy norm", "meta", "empty", "norms", "frozen"],
)
def test_a_network_with_nothing_to_scale_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        neurons(model)


def test_a_lazy_layer_is_an_ordinary_one_after_its_first_batch():
    model = nn.Sequential(nn.LazyLinear(2))
    model(torch.zeros(1, 3))
    assert splits(model) == {"0.weight": (2, 3), "0.bias": (1, 2)}


def test_an_unknown_granularity_is_named_with_the_nearest():
    with pytest.raises(InputError, match="'kernels' is unknown; did you mean 'kernel'"):
        neurons(nn.Linear(2, 2), "kernels")


class LlamaRMSNorm(nn.Module):
    """As in transformers: no relative of any torch class."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


class LayerNorm2d(nn.Module):
    """As in torchvision's ConvNeXt."""


class Normalize(nn.Module):
    """Shifts its input by constants; the scale of weights before it does not cancel."""


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.BatchNorm3d(3), nn.SyncBatchNorm(3)),
        *(nn.InstanceNorm2d(3, affine=True), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.RMSNorm(3)),
        *(LlamaRMSNorm(), LayerNorm2d(), nn.LazyBatchNorm2d()),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_norm_layers_are_known(layer):
    assert is_norm(layer)
    assert has_norm(nn.Sequential(nn.Linear(3, 3), nn.Sequential(layer)))


class PreNorm(nn.Module):
    """A block as many repositories have it; whether anything in it normalises is up to what is in it."""


@pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.ReLU(), nn.Dropout(), Normalize(), PreNorm()], ids=repr)
def test_other_layers_are_no_norms(layer):
    assert not is_norm(layer)
    assert not has_norm(nn.Sequential(layer))


def test_batch_norms_are_those_with_running_statistics():
    norms = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.SyncBatchNorm(2)]
    model = nn.Sequential(*norms, nn.LayerNorm(2), nn.InstanceNorm1d(2), nn.GroupNorm(1, 2))
    assert batch_norms(model) == norms


def test_size_and_count_of_a_parameter_of_no_dimension():
    entry = Neurons("gain", "Unknown", nn.Parameter(torch.tensor(2.0)), ())
    assert (entry.size, entry.count) == (1, 1)


def test_the_output_layer_is_the_one_nearest_to_the_output():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(-1))
    output = model(torch.randn(5, 3))
    assert output_layer(model, output) == ("2", model[2])
    assert output_layer(model, output.sum()) == ("2", model[2])
    assert output_layer(model, model[1](model[0](torch.randn(5, 3)))) == ("0", model[0])


@pytest.mark.parametrize("output", [torch.zeros(()), torch.zeros((), requires_grad=True) * 2], ids=["leaf", "graph"])
def test_an_output_of_no_layer_is_refused(output):
    with pytest.raises(InputError, match="name the head yourself"):
        output_layer(nn.Linear(2, 2), output)


def test_only_layers_and_what_makes_networks_know_layer_types():
    """A layer of another kind is then one more row in one table."""
    package = Path(warmstart.__file__).parent
    for file in package.rglob("*.py"):
        if file.relative_to(package).parts[0] in ("layers", "models", "theory"):
            continue
        code = re.sub(r"^ *(>>>|\.\.\.) .*$", "", file.read_text(), flags=re.MULTILINE)  # without examples
        assert not re.search(r"nn\.(Linear|Conv|BatchNorm|LayerNorm|Embedding)", code), file


@pytest.mark.parametrize("name", ["ScaledStdConv2d", "ScaledStdConv2dSame", "StdConv2d", "WSConv2d"])
def test_convolutions_that_normalise_their_weights_are_scaled_and_count_as_normalisation(name):
    layer = type(name, (nn.Conv2d,), {})(3, 4, 3)
    assert not is_norm(layer)
    assert has_norm(nn.Sequential(layer, nn.Linear(4, 2)))
    assert len(neurons(nn.Sequential(layer))[0]) == 2
