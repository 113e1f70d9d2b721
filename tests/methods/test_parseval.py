"""Parseval regularisation against plain loops and autograd, on the layers that people have."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

import reference_regularisers as reference
import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained
from warmstart.integrations import WarmStart


def prepared(make=cnn, shape=(3, 8, 8)):
    """A trained network with gradients in place."""
    batches = batches_for(shape, 4)
    model = trained(make(), batches)
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    return model


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


LAYERS = {
    "tall": lambda: nn.Linear(3, 6),
    "wide": lambda: nn.Linear(6, 3),
    "conv1d": lambda: nn.Conv1d(3, 4, 3),
    "conv2d": lambda: nn.Conv2d(3, 4, (3, 2)),
    "grouped": lambda: nn.Conv2d(4, 6, 2, groups=2),
    "depthwise": lambda: nn.Conv2d(3, 6, 2, groups=3),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradient_is_that_of_plain_loops(kind, channels_last):
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[kind]())
    if channels_last and model[0].weight.dim() == 4:
        model.to(memory_format=torch.channels_last)
    layer = model[0]
    strides = layer.weight.stride()
    ws.parseval_(model, 0.25)
    expected = reference.parseval_gradient(layer.weight, 1.0, 0.25, getattr(layer, "groups", 1))
    torch.testing.assert_close(layer.weight.grad.double(), expected, rtol=1e-5, atol=1e-6)
    assert layer.bias.grad is None
    assert layer.weight.stride() == strides


def test_transposed_convolutions_have_their_outputs_as_rows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2))
    ws.parseval_(model, 1.0)
    flipped = model[0].weight.detach().transpose(0, 1).contiguous()
    expected = reference.parseval_gradient(flipped, 1.0, 1.0).transpose(0, 1)
    torch.testing.assert_close(model[0].weight.grad.double(), expected, rtol=1e-5, atol=1e-6)


def test_attention_has_a_matrix_for_each_packed_projection():
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2)
    ws.parseval_(model, 1.0)
    expected = reference.parseval_gradient(model.in_proj_weight, 1.0, 1.0, groups=3)
    torch.testing.assert_close(model.in_proj_weight.grad.double(), expected, rtol=1e-5, atol=1e-6)
    assert model.out_proj.weight.grad is not None
    assert model.in_proj_bias.grad is None


def test_fires_variant_is_its_codes_loss_norm_gains_included():
    model = prepared().double()
    before = gradients(model)
    loss = 0
    for name, parameter in model.named_parameters():
        if name in ("1.weight", "4.weight"):
            loss = loss + (parameter**2 - 1).square().sum()
        elif name.endswith("weight"):
            loss = loss + reference.parseval_loss(parameter.flatten(1), 1.0)
    names = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    expected = torch.autograd.grad(1e-3 * loss, [model.get_parameter(name) for name in names])
    ws.parseval_(model)
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(model.get_parameter(name).grad, before[name] + gradient)
    for name in before.keys() - set(names):
        assert torch.equal(model.get_parameter(name).grad, before[name]), "biases are not pulled"


def test_chungs_variant_pulls_hidden_layers_to_twice_the_identity_by_their_width():
    model = prepared(mlp, (6,)).double()
    before = gradients(model)
    ws.parseval_(model, variant="chung", head="3")
    expected = reference.parseval_gradient(model[0].weight, 2.0, 1e-3 * (64 / 12) ** 2)
    torch.testing.assert_close(model[0].weight.grad, before["0.weight"] + expected)
    for name in before.keys() - {"0.weight"}:
        assert torch.equal(model.get_parameter(name).grad, before[name]), f"{name}: the head, a norm or a bias"


def test_the_head_is_found_by_the_graph_not_by_the_order_of_modules():
    model = reference.feed_forward()
    batches = batches_for((5,), 2)
    WarmStart(ws.Parseval(variant="chung"), batches, cross_entropy).apply_(model)
    warm_start = WarmStart(ws.Parseval(variant="chung"), batches, cross_entropy)
    warm_start.apply_(model)
    warm_start.after_backward(model, 0)
    pulled = {name for name, p in model.named_parameters() if p.grad is not None}
    assert pulled == {"first.weight", "hidden.weight"}


@pytest.mark.parametrize(("variant", "scale"), [("fire", 1.0), ("chung", 2.0)])
def test_alone_it_makes_rows_orthogonal_and_of_one_length(variant, scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        ws.parseval_(
            model, 1.0 if variant == "fire" else 1 / 64, variant=variant, head="2" if variant == "chung" else None
        )
        optimizer.step()
    w = model[0].weight.detach()
    torch.testing.assert_close(w @ w.T, scale * torch.eye(8), rtol=0, atol=1e-3)


def test_tied_weights_are_pulled_once_and_frozen_ones_not():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    ws.parseval_(model, 1.0)
    expected = reference.parseval_gradient(model[0].weight, 1.0, 1.0)
    torch.testing.assert_close(model[0].weight.grad.double(), expected, rtol=1e-5, atol=1e-6)
    assert model[2].weight.grad is None


def test_half_precision_is_computed_in_fp32():
    model = nn.Sequential(nn.Linear(8, 8)).to(torch.bfloat16)
    expected = reference.parseval_gradient(model[0].weight, 1.0, 1.0)
    ws.parseval_(model, 1.0)
    torch.testing.assert_close(model[0].weight.grad.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (cnn, {"coef": -1}, "coef is -1"),
        (cnn, {"scale": 0.0}, "scale is 0.0"),
        (cnn, {"variant": "fires"}, "did you mean 'fire'"),
        (cnn, {"variant": "chung"}, "leaves the output layer out: pass head='its name'"),
        (cnn, {"variant": "chung", "head": "9"}, "the model has no module '9'"),
        (cnn, {"head": "9"}, "head has no effect in variant 'fire'"),
        (lambda: nn.Embedding(4, 3), {}, "no weights to pull"),
    ],
)
def test_what_is_wrong_is_refused_before_any_gradient_changes(make, arguments, message):
    model = make()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.parseval_(model, **arguments)
    assert_same(before, snapshot(model))


def test_sharded_weights_are_refused_before_anything_changes():
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(mlp(), mesh=dist.init_device_mesh("cpu", (1,)))
        with pytest.raises(ws.InputError, match="sharded, and parseval needs whole matrices"):
            WarmStart(ws.Parseval(), batches_for((6,), 2), cross_entropy).apply_(model)
        assert all(p.grad is None for p in model.parameters())
    finally:
        dist.destroy_process_group()


def test_under_distributed_data_parallel_it_is_the_same():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = prepared()
        twin = copy.deepcopy(model)
        for copied, p in zip(twin.parameters(), model.parameters(), strict=True):
            copied.grad = p.grad.clone()
        wrapped = nn.parallel.DistributedDataParallel(model)
        ws.parseval_(wrapped, variant="chung", head="8")
        ws.parseval_(twin, variant="chung", head="8")
        assert_same(snapshot(twin), snapshot(model))
    finally:
        dist.destroy_process_group()
