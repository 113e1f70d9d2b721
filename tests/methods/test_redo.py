"""ReDo against its equation, unit by unit."""

import math

import pytest
import torch
from units_by_hand import NETWORKS, OPTIMIZERS, Training, differing, redraw_by_hand, usual_bound

import warmstart as ws


def dormant_by_hand(activations, tau):
    """The units with s_i = mean |a_i| / mean_k mean |a_k| <= tau."""
    activity = [float(activations[:, unit].abs().mean()) for unit in range(activations.size(1))]
    mean = sum(activity) / len(activity)
    return [unit for unit, size in enumerate(activity) if size <= tau * mean]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_exactly_the_dormant_units_are_redrawn_with_their_moments(network, optimizer):
    now, method, generator, redrawn = Training(network, optimizer), ws.Redo(0.6, 2), torch.Generator(), 0
    for number in range(6):
        now.update(number)
        expected = now.tensors()
        now.stage.generator.manual_seed(number)
        generator.manual_seed(number)
        chosen = [
            (layer, unit, usual_bound(expected, layer))
            for layer in (now.layers if number % 2 == 0 else [])
            for unit in dormant_by_hand(now.activations[layer.name], 0.6)
        ]
        redraw_by_hand(expected, chosen, generator)
        redrawn += len(chosen)
        method.after_step(now.model, now.stage)
        assert not differing(now.tensors(), expected, near=("0.weight", "3.weight"))
    assert redrawn > 4
    assert redrawn == sum(int(now.stage.state[f"redrawn of {layer.name}"]) for layer in now.layers)


@pytest.mark.parametrize("network", NETWORKS)
def test_where_the_first_weights_are_known_new_ones_are_spread_like_them(network):
    now, generator = Training(network, know_first=True), torch.Generator().manual_seed(1)
    now.stage.initial = {name: 5 * tensor for name, tensor in now.stage.initial.items()}
    now.update(0)
    expected = now.tensors()
    first = now.stage.initial
    chosen = [
        (layer, unit, math.sqrt(3) * float(first[f"{layer.name}.weight"].std()))
        for layer in now.layers
        for unit in dormant_by_hand(now.activations[layer.name], 0.7)
    ]
    redraw_by_hand(expected, chosen, generator)
    now.stage.generator.manual_seed(1)
    ws.Redo(0.7).after_step(now.model, now.stage)
    assert not differing(now.tensors(), expected, near=("0.weight", "3.weight"))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_dead_unit_lives_again_and_the_network_says_what_it_said(network):
    now = Training(network, size=64)
    with torch.no_grad():
        now.model[1].bias[2] = -50.0
        now.model[3].bias[1] = -50.0
    now.update(0)
    now.model.eval()
    inputs = torch.randn(200, *now.batches[0][0].shape[1:])
    before, weights = now.model(inputs), now.tensors()
    assert not now.model[:3](inputs)[:, 2].any()
    ws.Redo(0.0).after_step(now.model, now.stage)
    changed = {name for name, tensor in now.tensors().items() if not torch.equal(tensor, weights[name])}
    assert {"0.weight", "0.bias", "1.bias", "3.weight", "3.bias", f"{now.layers[1].reader}.weight"} <= changed
    assert torch.equal(now.model(inputs), before)
    assert now.model[:3](inputs)[:, 2].any()
    # It learns: the loss has a gradient by its outgoing weights.
    now.update(1)
    assert now.model[3].weight.grad[:, 2].any()


def test_it_acts_at_a_stages_first_update_except_the_firsts_and_every_so_many_after_it():
    acted = []
    for number in (1, 2):
        now = Training(number=number)
        for update in range(7):
            now.update(update)
            before = now.tensors()
            ws.Redo(1.0, 3).after_step(now.model, now.stage)
            if differing(now.tensors(), before):
                acted.append((number, update))
    assert acted == [(1, 3), (1, 6), (2, 0), (2, 3), (2, 6)]


def test_all_units_of_a_dead_layer_are_redrawn():
    now = Training()
    with torch.no_grad():
        now.model[1].bias.fill_(-50.0)
    now.update(0)
    ws.Redo().after_step(now.model, now.stage)
    assert int(now.stage.state["redrawn of 0"]) == 8


def test_activations_that_are_no_numbers_redraw_nothing():
    now = Training()
    now.update(0)
    now.stage.activations = {name: rows * math.nan for name, rows in now.stage.activations.items()}
    before = now.tensors()
    ws.Redo(1.0).after_step(now.model, now.stage)
    assert not differing(now.tensors(), before)
