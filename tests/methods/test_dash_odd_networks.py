"""DASH on networks and batches that are unusual but somebody's own."""

import copy
import warnings
from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, embedding
from torch.nn.utils import prune

import reference
import warmstart as ws
from networks import assert_same, batches_for, mlp, snapshot, trained

BATCHES = batches_for((6,), 4)


class Around(nn.Module):
    """A usual network with something unusual beside it."""

    def __init__(self, extra, forward):
        super().__init__()
        self.body, self.extra, self.use = trained(mlp(), BATCHES), extra, forward

    def forward(self, x):
        return self.use(self.body(x), self.extra, x)


def scalar():
    return Around(
        nn.ParameterDict({"gain": nn.Parameter(torch.tensor(1.5))}), lambda out, extra, x: out * extra["gain"]
    )


def without_elements():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of the empty tensor that this is about
        layer = nn.Linear(6, 0)
    return Around(layer, lambda out, extra, x: out + extra(x).sum())


def complex_numbers():
    layer = nn.Linear(6, 4, dtype=torch.complex64)
    return Around(layer, lambda out, extra, x: out + extra(x.to(torch.complex64)).abs())


def unused():
    return Around(nn.Linear(3, 3), lambda out, extra, x: out)


@pytest.mark.parametrize("make", [scalar, without_elements, complex_numbers, unused])
def test_what_has_no_rule_stays_and_the_rest_is_shrunk(make):
    torch.manual_seed(0)
    model = make()
    before = copy.deepcopy(model.state_dict())
    report = ws.dash_(model, BATCHES, cross_entropy)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"body.0.weight", "body.0.bias", "body.3.weight", "body.3.bias"}
    assert {name for name in before if name.startswith("extra")} <= {entry.name for entry in report.left_alone}


def test_biases_alone_are_shrunk_where_only_they_are_trained():
    model = trained(mlp(), BATCHES)
    for layer in (model[0], model[3]):
        layer.weight.requires_grad_(False)
    assert [layer.name for layer in ws.dash_(model, BATCHES, cross_entropy).layers] == ["0.bias", "3.bias"]


def test_a_network_of_bare_parameters_is_refused():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return x[:, :4] + self.bias

    with pytest.raises(ws.InputError, match=r"no weights to scale \(bias: no rule for Bare.bias"):
        ws.dash_(Bare(), BATCHES, cross_entropy)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_inside_every_gradient_mode(mode):
    model, twin = trained(mlp(), BATCHES), trained(mlp(), BATCHES)
    ws.dash_(twin, BATCHES, cross_entropy)
    with mode():
        ws.dash_(model, BATCHES, cross_entropy)
    assert_same(snapshot(twin), snapshot(model))
    trained(model, BATCHES, steps=1)  # as ordinary weights


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.float64, 1e-12)])
def test_half_and_double_precision_equal_the_reference(dtype, tolerance):
    model = trained(mlp(), BATCHES).to(dtype)
    batches = [(inputs.to(dtype), targets) for inputs, targets in BATCHES]
    expected = reference.dash(model, batches, cross_entropy, 0.3, 0.3)
    ws.dash_(model, batches, cross_entropy)
    for name, (_, weights) in expected.items():
        parameter = model.get_parameter(name)
        assert parameter.dtype == dtype
        torch.testing.assert_close(parameter.double(), weights, rtol=0, atol=tolerance)


def test_sparse_gradients_give_the_scales_of_dense_ones():
    class Table(nn.Module):
        def __init__(self, sparse):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head, self.sparse = nn.Linear(5, 10, bias=False), nn.Linear(5, 4), sparse

        def forward(self, x):
            return self.head(embedding(x, self.table.weight, sparse=self.sparse).mean(1))

    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randint(0, 10, (8, 3), generator=generator), targets) for _, targets in BATCHES]
    sparse, dense = Table(True), Table(False)
    for model in (sparse, dense):
        ws.dash_(model, batches, cross_entropy)
    torch.testing.assert_close(sparse.table.weight, dense.table.weight)


def test_a_layer_used_twice_is_shrunk_once_by_the_sum_of_its_gradients():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.layer(torch.relu(self.layer(x))))

    model = trained(Twice(), BATCHES)
    expected = reference.dash(model, BATCHES, cross_entropy, 0.3, 0.1)
    ws.dash_(model, BATCHES, cross_entropy, lambda_=0.1)
    for name, (_, weights) in expected.items():
        torch.testing.assert_close(model.get_parameter(name).double(), weights, rtol=0, atol=1e-6)


def test_hooks_on_gradients_act_as_in_training_and_stay():
    """A hook that flips a gradient flips the cosine's sign."""
    model, twin = trained(mlp(), BATCHES), trained(mlp(), BATCHES)
    calls = []
    handle = model[3].weight.register_hook(lambda gradient: calls.append(1) or -gradient)
    flipped = ws.dash_(model, BATCHES, cross_entropy, lambda_=0, apply=False).layers[2]
    plain = ws.dash_(twin, BATCHES, cross_entropy, lambda_=0, apply=False).layers[2]
    assert flipped.name == plain.name == "3.weight"
    assert len(calls) == len(BATCHES)
    assert flipped.mean != pytest.approx(plain.mean)
    handle.remove()
    assert ws.dash_(model, BATCHES, cross_entropy, lambda_=0, apply=False).layers[2].mean == plain.mean


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (nn.DataParallel, "module."),
        (compiled, "_orig_mod."),
        (lambda model: compiled(nn.DataParallel(model)), "_orig_mod.module."),
    ],
    ids=["parallel", "compiled", "both"],
)
def test_wrapped_networks_change_inside_the_wrapper_under_their_own_names(wrap, prefix):
    model, twin = trained(mlp(), BATCHES), trained(mlp(), BATCHES)
    wrapped = wrap(model)
    first = {name: tensor.clone() for name, tensor in wrapped.state_dict().items()}
    assert all(name.startswith(prefix) for name in first)

    def both(method, *args, **settings):
        reports = [method(network, *args, **settings) for network in (wrapped, twin)]
        assert str(reports[0]) == str(reports[1])
        assert_same(snapshot(twin), snapshot(model))

    both(ws.dash_, BATCHES, cross_entropy, filter_fn=lambda layer, name: name == "3")
    both(ws.shrink_perturb_, variant="dash", noise_std=0)
    own = {name.removeprefix(prefix): tensor for name, tensor in first.items()}
    for other in (first, own):
        ws.shrink_perturb_(wrapped, variant="hare-tortoise", other=other)
        ws.shrink_perturb_(twin, variant="hare-tortoise", other=own)
    assert_same(snapshot(twin), snapshot(model))
    for head in ("3", f"{prefix}3"):
        assert [layer.name for layer in ws.head_reset_(wrapped, head).layers] == ["3.weight", "3.bias"]


def test_an_average_of_a_network_fits_it_when_it_is_compiled():
    model = trained(mlp(), BATCHES)
    ema, twin = ws.GradientEMA(model), copy.deepcopy(model)
    wrapped = compiled(model)
    for network, average in ((wrapped, ema), (twin, ws.GradientEMA(twin))):
        for inputs, targets in BATCHES:
            network.zero_grad()
            cross_entropy(network(inputs), targets).backward()
            average.update()
        ws.dash_from_(network, average)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.LazyLinear(4)), "run the network once on a batch"),
        (lambda: mlp().to("meta"), "on the meta device"),
    ],
    ids=["lazy", "meta"],
)
def test_networks_without_values_are_refused(make, message):
    with pytest.raises(ws.InputError, match=message):
        ws.dash_(make(), BATCHES, cross_entropy)


class Labelled(nn.Module):
    """Called as networks of Hugging Face are; ``give`` makes its output."""

    def __init__(self, give):
        super().__init__()
        self.body, self.give = trained(mlp(), BATCHES), give

    def forward(self, inputs, labels=None):
        logits = self.body(inputs)
        loss = None if labels is None else cross_entropy(logits, labels)
        return self.give(loss=loss, logits=logits)


@pytest.mark.parametrize("batch", [dict, UserDict])
@pytest.mark.parametrize("output", [dict, SimpleNamespace])
@pytest.mark.parametrize("micro", [None, 3])
def test_mappings_in_and_an_output_with_a_loss(batch, output, micro):
    model, twin = Labelled(output), trained(mlp(), BATCHES)
    ws.dash_(model, [batch(inputs=x, labels=y) for x, y in BATCHES], micro_batch_size=micro)
    ws.dash_(twin, BATCHES, cross_entropy, micro_batch_size=micro)
    assert_same(snapshot(twin), snapshot(model.body))


@pytest.mark.parametrize(
    ("batch", "message"),
    [({"inputs": BATCHES[0][0]}, "output has no .loss"), (BATCHES[0], "must be a mapping, not a tuple")],
)
def test_without_a_loss_it_says_what_is_missing(batch, message):
    model = Labelled(dict)
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.dash_(model, [batch])
    assert_same(before, snapshot(model))


def test_a_loss_can_be_given_in_one_way_only():
    with pytest.raises(ws.InputError, match="not both"):
        ws.dash_(mlp(), BATCHES, cross_entropy, forward_loss=lambda model, batch: None)


def test_training_after_dash_moves_the_network_that_was_given():
    """No weight was replaced by another tensor: the optimizer still holds the network's own."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ids = [id(parameter) for parameter in model.parameters()]
    ws.dash_(model, BATCHES, cross_entropy)
    assert ids == [id(parameter) for parameter in model.parameters()]
    before = model[0].weight.detach().clone()
    cross_entropy(model(BATCHES[0][0]), BATCHES[0][1]).backward()
    optimizer.step()
    assert not torch.equal(before, model[0].weight)


class Caching(nn.Module):
    """As timm's LeViT, EfficientFormer and TinyViT: computed from a parameter, and kept in eval mode."""

    def __init__(self, keep):
        super().__init__()
        self.body = trained(mlp(), BATCHES)
        self.biases = nn.Parameter(torch.linspace(-1, 1, 8).view(2, 4))
        self.index = torch.tensor([3, 1, 0, 2])
        self.attention_bias_cache, self.kept, self.last = {}, [], None
        self.keep = keep

    def forward(self, x):
        bias = self.biases[:, self.index]
        if not self.training and self.keep == "dict":
            bias = self.attention_bias_cache.setdefault(str(x.device), bias)
        elif not self.training and self.keep == "list":
            self.kept = self.kept or [bias]
            (bias,) = self.kept
        elif not self.training and self.keep == "attribute":
            self.last = bias = bias if self.last is None else self.last
        elif not self.training and self.keep == "new attribute":
            self.new = bias = getattr(self, "new", bias)
        return self.body(x) + bias.sum(0)


@pytest.mark.parametrize("keep", ["dict", "list", "attribute", "new attribute"])
def test_tensors_that_a_network_keeps_in_eval_mode_stop_no_backward_pass_and_no_copy(keep):
    model, twin = Caching(keep), Caching("nothing")
    cache = model.attention_bias_cache
    for network in (model, twin):
        ws.dash_(network, BATCHES, cross_entropy, micro_batch_size=3)
    assert_same(snapshot(twin), snapshot(model))
    assert (cache, model.attention_bias_cache, model.kept, model.last) == ({}, {}, [], None)
    assert model.attention_bias_cache is cache
    copy.deepcopy(model)
    assert not hasattr(model, "new")


def test_what_it_had_kept_before_is_there_again():
    model = Caching("dict")
    constant, own = torch.ones(2, 4), model.biases * 2
    model.attention_bias_cache |= {"cpu": constant}
    model.last = own
    ws.dash_(model, BATCHES, cross_entropy)
    assert model.attention_bias_cache == {"cpu": constant}
    assert model.last is own


@pytest.mark.parametrize("keep", ["dict", "list", "attribute"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_it_works_after_an_evaluation_that_has_filled_the_caches(keep, mode):
    model = Caching(keep).eval()
    with mode():
        model(BATCHES[0][0])
    kept = [*model.attention_bias_cache.values(), *model.kept, model.last][0]
    report = ws.dash_(model, BATCHES, cross_entropy)
    assert report.applied
    assert [*model.attention_bias_cache.values(), *model.kept, model.last][0] is kept


def test_nothing_is_kept_where_it_fails_either():
    model = Caching("dict")

    def fails(output, target):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        ws.dash_(model, BATCHES, fails)
    assert model.attention_bias_cache == {}


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (nn.utils.weight_norm, nn.utils.remove_weight_norm),
        (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), lambda layer: prune.remove(layer, "weight")),
    ],
    ids=["weight norm", "spectral norm", "pruning"],
)
def test_a_weight_that_a_hook_computes_stays_with_advice_that_works(change, undo):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates them
        model = nn.Sequential(change(nn.Linear(6, 8)), nn.LayerNorm(8), nn.Linear(8, 4))
        report = ws.dash_(model, BATCHES, cross_entropy)
        made = [entry for entry in report.left_alone if entry.name.startswith("0.weight")]
        assert all(f"torch.nn.utils.{undo.__name__}" in e.reason for e in made if undo.__name__ != "<lambda>")
        assert all("hook" in entry.reason for entry in made)
        assert made
        undo(model[0])
    assert "0.weight" in [layer.name for layer in ws.dash_(model, BATCHES, cross_entropy).layers]
