"""What the methods that redraw units share: what they leave alone, what they refuse, what they report."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, silu
from units_by_hand import Training, differing

import warmstart as ws
from networks import batches_for
from warmstart.integrations import WarmStart
from warmstart.models.registry import model_factory

METHODS = (ws.Redo(1.0, 1), ws.ContinualBackprop(0.5, 0), ws.SelfNormalizedResets(0.5, 1, 1))
each = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


class SwiGLU(nn.Module):
    """All hidden units are multiplied with others."""

    def __init__(self):
        super().__init__()
        self.w1, self.w3, self.w2 = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.w2(silu(self.w1(x)) * self.w3(x))


def begun(method, model, shape=(6,)):
    """A warm start in a bare loop whose first update is about to be acted on, and its optimizer."""
    batches = batches_for(shape, 3, size=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warm_start = WarmStart(method, batches, cross_entropy)
    warm_start.apply_(model, optimizer)
    model.train()
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    optimizer.step()
    return warm_start, optimizer


@each
def test_a_network_without_such_units_is_refused_at_once(method):
    model = SwiGLU()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ws.InputError, match=r"no unit that can be redrawn alone \(w1: .* multiplied") as refused:
        WarmStart(method, batches_for((6,), 3), cross_entropy).apply_(model)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@each
def test_units_of_a_residual_stream_stay_and_the_report_says_which_share_does_not(method):
    torch.manual_seed(0)
    model = model_factory("resnet18")(4, 3, 16, width=4)
    nn.init.constant_(model.layer1[0].bn1.bias, -50)
    warm_start, _ = begun(method, model, (3, 16, 16))
    report = warm_start.report
    assert report.layers == ()  # nothing has changed yet
    left = {entry.name: entry.reason for entry in report.left_alone}
    assert left["fc"] == "its units are the network's output"
    assert left["layer1.0.conv2"] == left["conv1"] == "its units are added to another layer's, or multiplied with them"
    assert report.warnings == ("only 120 of 300 hidden units can be redrawn (40%)",)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    warm_start.after_step(model, 0)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"layer1.0.conv1.weight", "layer1.0.bn1.bias", "layer1.0.conv2.weight"} <= changed
    allowed = ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "conv2.weight")
    assert all(name.startswith("layer") and name.endswith(allowed) for name in changed), changed


@each
def test_a_norm_over_several_units_is_warned_of(method):
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4))
    warm_start, _ = begun(method, model)
    assert warm_start.report.warnings == ("8 units of these share a norm layer's mean: one redrawn shifts the others",)
    warm_start.after_step(model, 0)


@each
def test_the_next_report_counts_what_was_redrawn(method):
    now = Training()
    with torch.no_grad():
        now.model[1].bias[2] = -50.0
    for number in range(3):
        now.update(number)
        method.after_step(now.model, now.stage)
    counts = {name: int(now.stage.state.get(f"redrawn of {name}", 0)) for name in ("0", "3")}
    assert counts["0"] > 0
    listed = ", ".join(
        f"{count} of {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count
    )
    said = f"redrawn so far: {sum(counts.values())} units, most of all {listed}"
    assert method.on_new_data(now.model, now.stage).notes[-1].replace(" unit,", " units,") == said
    assert method.on_new_data(now.model, Training().stage).notes[-1] == "redrawn so far: 0 units"


@each
def test_without_the_optimizer_or_activations_it_is_refused_and_nothing_changes(method):
    now = Training()
    now.update(0)
    seen, now.stage.activations = now.stage.activations, {}
    before = now.tensors()
    with pytest.raises(ws.InputError, match="no activations were seen in this update: run the network in train mode"):
        method.after_step(now.model, now.stage)
    now.stage.activations, now.stage.optimizer = seen, None
    with pytest.raises(ws.InputError, match=r"the optimizer is needed: apply_\(model, optimizer\)"):
        method.after_step(now.model, now.stage)
    assert not differing(now.tensors(), before)


@each
def test_moments_that_do_not_tell_units_apart_are_refused_at_the_first_update(method):
    now = Training()
    now.stage.optimizer = now.optimizer = torch.optim.Adafactor(now.model.parameters())
    now.update(0)
    before = {name: tensor.clone() for name, tensor in now.model.state_dict().items()}
    with pytest.raises(ws.InputError, match=r"Adafactor keeps row_var of 0.weight in another shape, .* use SGD, SAM"):
        method.after_step(now.model, now.stage)
    assert all(torch.equal(tensor, before[name]) for name, tensor in now.model.state_dict().items())


@each
def test_an_optimizer_without_moments_is_none_the_worse(method):
    now = Training()
    now.stage.optimizer = now.optimizer = torch.optim.SGD(now.model.parameters(), lr=0.1)
    with torch.no_grad():
        now.model[1].bias[2] = -50.0
    now.update(0)
    method.after_step(now.model, now.stage)
    assert not now.model[3].weight[:, 2].any()


def test_first_weights_of_another_network_are_refused():
    now = Training(know_first=True)
    now.update(0)
    now.stage.initial = {"0.weight": torch.zeros(2, 2)}
    before = now.tensors()
    with pytest.raises(ws.InputError, match=r"initial holds no first value for 0\.weight"):
        ws.Redo(1.0).after_step(now.model, now.stage)
    assert not differing(now.tensors(), before)


def test_first_weights_of_zero_are_no_spread():
    now = Training(know_first=True)
    now.update(0)
    now.stage.initial = {name: torch.zeros_like(tensor) for name, tensor in now.stage.initial.items()}
    ws.Redo(10.0).after_step(now.model, now.stage)
    assert 0.5 / math.sqrt(6) < now.model[0].weight.abs().max().item() <= 1 / math.sqrt(6)


@each
def test_half_precision_stays_half(method):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).to(torch.bfloat16)
    batches = [(inputs.bfloat16(), targets) for inputs, targets in batches_for((6,), 3, size=4)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warm_start = WarmStart(method, batches, cross_entropy)
    warm_start.apply_(model, optimizer)
    with torch.no_grad():
        model[0].bias[2] = -50.0
    for step, (inputs, targets) in enumerate(batches):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        warm_start.after_step(model, step)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert int(warm_start.state_dict()["state"]["redrawn of 0"]) > 0
