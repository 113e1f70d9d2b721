"""Normalize-and-project: where norm layers go, and that hidden weights keep their first norm."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

import reference_regularisers as reference
import warmstart as ws
from networks import batches_for, cnn, mlp
from warmstart.integrations import WarmStart
from warmstart.layers.activations import CReLU, FixedLayerNorm


def plain():
    """Without norm layers: maps, then vectors."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GELU(), nn.Flatten()),
        *(nn.Linear(4 * 16, 12), nn.Dropout(0.0), nn.ReLU(), nn.Linear(12, 4)),
    )


class Block(nn.Module):
    """As a residual block: its activation is used twice, behind norm layers of the block's own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.relu(self.bn(self.conv(x))) + x)


class Mlp(nn.Module):
    """As in a transformer."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def norms(model):
    return {name: layer.maps for name, layer in model.named_modules() if isinstance(layer, FixedLayerNorm)}


def test_each_activation_gets_a_norm_over_maps_or_vectors_and_no_name_of_a_parameter_changes():
    model, twin = plain(), plain()
    ws.NormalizeAndProject().prepare(model)
    assert norms(model) == {"1.0": True, "3.0": True, "7.0": False}
    assert model.state_dict().keys() == twin.state_dict().keys()
    seen = []
    for index in (1, 3, 7):
        model[index][1].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    model(torch.randn(5, 3, 8, 8))
    for inputs in seen:
        values = inputs.flatten(1)
        torch.testing.assert_close(values.mean(1), torch.zeros(5), rtol=0, atol=1e-5)
        torch.testing.assert_close(values.var(1, unbiased=False), torch.ones(5), rtol=0, atol=1e-3)


def test_where_norm_layers_are_none_are_added():
    for model in (cnn(), mlp(), nn.Sequential(Block(), nn.Flatten(), nn.Linear(64, 4))):
        twin = str(model)
        ws.NormalizeAndProject().prepare(model)
        assert str(model) == twin


def test_a_network_that_is_normalised_in_part_is_completed():
    model = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), Mlp())
    ws.NormalizeAndProject().prepare(model)
    assert norms(model) == {"4.0": False, "5.act.0": False}
    again = str(model)
    ws.NormalizeAndProject().prepare(model)
    assert str(model) == again


def test_vgg16_gets_norms_in_its_classifier_and_crelu_is_an_activation():
    from warmstart.models.registry import model_factory

    with torch.device("meta"):
        model = model_factory("vgg16")(10, 3, 32)
        crelu = model_factory("small-cnn[norm=none,activation=crelu]")(10, 3, 8)
    for network in (model, crelu):
        ws.NormalizeAndProject().prepare(network)
    assert norms(model) == {"classifier.1.0": False, "classifier.4.0": False}
    assert list(norms(crelu).values()) == [True] * 3
    assert isinstance(crelu.features[1][1], CReLU)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return torch.relu(self.fc(x))


class Unclear(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
        self.relu = nn.ReLU()


@pytest.mark.parametrize(
    ("make", "message"),
    [(Functional, "finds no activation that is a module"), (Unclear, "what comes before relu cannot be told")],
)
def test_a_network_that_cannot_be_prepared_is_refused_and_stays(make, message):
    model = make()
    before = str(model)
    with pytest.raises(ws.InputError, match=message):
        ws.NormalizeAndProject().prepare(model)
    assert str(model) == before


@pytest.mark.parametrize("channels_last", [False, True])
def test_hidden_weights_keep_their_first_norm_and_all_else_is_the_optimizers(channels_last):
    model = plain()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    method, batches = ws.NormalizeAndProject(), batches_for((3, 8, 8), 4)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    warm_start = WarmStart(method, batches, cross_entropy, initial=initial)
    warm_start.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    warm_start.apply_(model, optimizer)
    strides = model[0].weight.stride()
    for step, (inputs, targets) in enumerate(batches):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        warm_start.after_step(model, step)
        for name, tensor in model.state_dict().items():
            if name in ("0.weight", "2.weight", "5.weight"):
                expected = reference.projected(before[name], initial[name])
                torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(tensor, before[name]), name
    assert model[0].weight.stride() == strides
    assert "3 hidden weights" in warm_start.report.notes[0]


def test_the_projection_does_not_change_what_a_prepared_network_says_where_biases_are_0():
    model = plain()
    ws.NormalizeAndProject().prepare(model)
    initial = {name: 3 * tensor for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for index in (0, 2, 5):
            model[index].bias.zero_()
    inputs = torch.randn(5, 3, 8, 8)
    before = model(inputs)
    stage = ws.Stage(2, 8, 8, list, None, None, initial, torch.Generator())
    ws.NormalizeAndProject(head="8").after_step(model, stage)
    torch.testing.assert_close(model(inputs), before, rtol=1e-2, atol=1e-3)


def test_it_is_prepared_before_the_optimizer_or_refused():
    model = plain()
    warm_start = WarmStart(ws.NormalizeAndProject(), batches_for((3, 8, 8), 2), cross_entropy)
    with pytest.raises(ws.InputError, match="call prepare"):
        warm_start.apply_(model)


def test_under_fsdp2_it_is_the_same():
    from torch.distributed.fsdp import fully_shard

    batches = batches_for((6,), 2)
    model = mlp()
    twin = copy.deepcopy(model)
    initial = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        made = [WarmStart(ws.NormalizeAndProject(), batches, cross_entropy, initial=initial) for _ in range(2)]
        for network, warm_start in zip((model, twin), made, strict=True):
            warm_start.prepare(network)
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)))
        for network, warm_start in zip((model, twin), made, strict=True):
            warm_start.apply_(network)
            warm_start.after_step(network, 0)
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.full_tensor(), theirs)
    finally:
        dist.destroy_process_group()


def test_a_head_that_is_not_there_is_refused_before_training():
    with pytest.raises(ws.InputError, match="the model has no module 'fcc'"):
        ws.NormalizeAndProject(head="fcc").prepare(mlp())
