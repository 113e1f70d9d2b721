"""Soft weight rescaling against the paper's algorithm in plain loops, and the property that it is made for."""

import math

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

import reference_regularisers as reference
import warmstart as ws
from networks import batches_for, mlp
from warmstart.integrations import WarmStart

BATCHES = batches_for((5,), 4)


def moved(norm=True):
    """A network away from its first weights, a stage for it, and its layers in the order in which they run."""
    model = reference.feed_forward(norm)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.mul_(1 + 0.3 * number).add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)

    def loss(network, batch):
        return cross_entropy(network(batch[0]), batch[1])

    stage = ws.Stage(2, 32, 8, lambda size: BATCHES, loss, None, first, torch.Generator())
    order = [name for name in ("first", "norm", "hidden", "out") if norm or name != "norm"]
    return model, stage, order


@pytest.mark.parametrize("norm", [True, False])
def test_each_layer_is_scaled_as_the_algorithm_says(norm):
    model, stage, order = moved(norm)
    layers = [(model.get_submodule(name).weight.double(), model.get_submodule(name).bias.double()) for name in order]
    first = [stage.initial[f"{name}.weight"].double() for name in order]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    expected = reference.soft_weight_rescaling(layers, first, order.index("norm") if norm else None, 0.2, 0.5)
    ws.SoftWeightRescaling(coef=0.2, classifier_coef=0.5).after_step(model, stage)
    for name, (weight, bias) in zip(order, expected, strict=True):
        torch.testing.assert_close(model.get_submodule(name).weight.double(), weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.get_submodule(name).bias.double(), bias, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("norm", [True, False])
def test_the_output_is_only_multiplied_by_one_number(norm):
    """Theorem 1: with a norm in train mode, which has no running statistics that lag behind."""
    model, stage, order = moved(norm)
    inputs = torch.cat([inputs for inputs, _ in BATCHES])
    before = model(inputs)
    norms = {name: model.get_submodule(name).weight.norm().item() for name in order}
    ws.SoftWeightRescaling(coef=0.3, classifier_coef=0.9).after_step(model, stage)
    counted = order[order.index("norm") :] if norm else order
    factor = 1.0
    for name in counted:
        factor *= model.get_submodule(name).weight.norm().item() / norms[name]
    assert factor != pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(model(inputs), factor * before, rtol=1e-3, atol=1e-4)


def test_the_product_begins_at_a_norm_layer_without_gains_too():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6, affine=False)
    model = nn.Sequential(nn.Linear(5, 6), norm, nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4))
    stage = moved()[1]
    stage.initial = {name: tensor * (2 + len(name) % 3) for name, tensor in model.state_dict().items()}
    inputs = torch.cat([inputs for inputs, _ in BATCHES])
    before, norms = model(inputs), [model[index].weight.norm().item() for index in (3, 5)]
    ws.SoftWeightRescaling(coef=0.3, classifier_coef=0.9).after_step(model, stage)
    factor = math.prod(model[index].weight.norm().item() / n for index, n in zip((3, 5), norms, strict=True))
    torch.testing.assert_close(model(inputs), factor * before, rtol=1e-3, atol=1e-4)


def test_repeated_it_brings_every_norm_to_the_first_one():
    model, stage, order = moved()
    method = ws.SoftWeightRescaling(coef=0.1, classifier_coef=0.1)
    for _ in range(200):
        method.after_step(model, stage)
    for name in order:
        now, first = model.get_submodule(name).weight.norm(), stage.initial[f"{name}.weight"].norm()
        torch.testing.assert_close(now, first)


def test_frozen_tied_and_zero_weights():
    model, stage, _ = moved()
    model.hidden.requires_grad_(False)
    nn.init.zeros_(model.out.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ws.SoftWeightRescaling().after_step(model, stage)
    for name in ("hidden.weight", "hidden.bias", "out.weight"):
        assert torch.equal(model.state_dict()[name], before[name])
    tied = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 4))
    tied[1].weight = tied[0].weight
    stage.initial = {name: 2 * tensor for name, tensor in tied.state_dict().items()}
    weight = tied[0].weight.detach().clone()
    ws.SoftWeightRescaling(coef=0.5).after_step(tied, stage)
    torch.testing.assert_close(tied[0].weight.detach(), 1.5 * weight)


def test_channels_last_weights_keep_their_layout():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    model.to(memory_format=torch.channels_last)
    batches = batches_for((3, 8, 8), 2)
    strides, weight = model[0].weight.stride(), model[0].weight.detach().clone()
    initial = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    warm_start = WarmStart(ws.SoftWeightRescaling(coef=0.5), batches, cross_entropy, initial=initial)
    warm_start.apply_(model)
    warm_start.after_step(model, 0)
    assert model[0].weight.stride() == strides
    torch.testing.assert_close(model[0].weight.detach(), 1.5 * weight)


def test_without_first_weights_it_is_refused_in_one_line():
    model = mlp()
    warm_start = WarmStart(ws.SoftWeightRescaling(), batches_for((6,), 2), cross_entropy)
    with pytest.raises(ws.InputError, match=r"pass WarmStart\(\.\.\., initial=first_state_dict\)"):
        warm_start.apply_(model)


def test_under_fsdp2_it_is_the_same():
    from torch.distributed.fsdp import fully_shard

    batches = batches_for((6,), 2)
    model, twin = mlp(), mlp()
    initial = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharded = fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)))
        for network in (sharded, twin):
            warm_start = WarmStart(ws.SoftWeightRescaling(), batches, cross_entropy, initial=initial)
            warm_start.apply_(network)
            warm_start.after_step(network, 0)
        for ours, theirs in zip(sharded.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.full_tensor(), theirs)
    finally:
        dist.destroy_process_group()
