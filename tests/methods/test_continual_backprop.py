"""Continual backprop against its equations, unit by unit."""

import math

import pytest
import torch
from units_by_hand import NETWORKS, OPTIMIZERS, Training, differing, redraw_by_hand, usual_bound

import warmstart as ws


class LayerByHand:
    """Age and utility of each unit of a layer, and how many units it owes."""

    def __init__(self, method, count):
        self.method, self.owed = method, 0.0
        self.age, self.utility = ([0.0] * count for _ in range(2))

    def replaced(self, activations, outgoing):
        """The units that are, the least useful first; ``outgoing`` are their weights."""
        decay = self.method.decay
        for unit in range(len(self.age)):
            h = activations[:, unit].double()
            self.age[unit] += 1
            contribution = float(h.abs().mean()) * float(outgoing[unit].double().abs().mean())
            self.utility[unit] = decay * self.utility[unit] + (1 - decay) * contribution
        eligible = [unit for unit, age in enumerate(self.age) if age > self.method.maturity]
        self.owed += self.method.rate * len(eligible)
        chosen = sorted(eligible, key=lambda unit: self.utility[unit] / (1 - decay ** self.age[unit]))[: int(self.owed)]
        self.owed -= len(chosen)
        for unit in chosen:
            self.age[unit] = self.utility[unit] = 0.0
        return chosen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_exactly_the_least_useful_units_are_redrawn_with_their_moments(network, optimizer):
    method = ws.ContinualBackprop(rate=1 / 16, maturity=3, decay=0.9)
    now, generator, redrawn = Training(network, optimizer), torch.Generator(), 0
    hand = {layer.name: LayerByHand(method, len(now.model[int(layer.name)].bias)) for layer in now.layers}
    for number in range(24):
        now.update(number)
        expected = now.tensors()
        now.stage.generator.manual_seed(number)
        generator.manual_seed(number)
        chosen = []
        for layer in now.layers:
            outgoing = expected[f"{layer.reader}.weight"].split(layer.slots, 1)
            for unit in hand[layer.name].replaced(now.activations[layer.name], outgoing):
                chosen.append((layer, unit, usual_bound(expected, layer)))
        redraw_by_hand(expected, chosen, generator)
        redrawn += len(chosen)
        method.after_step(now.model, now.stage)
        assert not differing(now.tensors(), expected, near=("0.weight", "3.weight"))
    assert redrawn > 10


@pytest.mark.parametrize("network", NETWORKS)
def test_a_redrawn_unit_is_spread_as_its_layer_first_was_and_not_by_a_gain_for_relu(network):
    """The authors' `get_layer_bound`: 1 / sqrt(fan in) of a convolution, Kaiming's in their Kaiming networks."""
    now, generator = Training(network, know_first=True), torch.Generator().manual_seed(1)
    now.update(0)
    expected, first = now.tensors(), now.stage.initial
    spread = {layer.name: math.sqrt(3) * float(first[f"{layer.name}.weight"].std()) for layer in now.layers}
    units = [(layer, unit) for layer in now.layers for unit in range(len(now.model[int(layer.name)].bias))]
    outgoing = {layer.name: expected[f"{layer.reader}.weight"].split(layer.slots, 1) for layer in now.layers}

    def utility(layer, unit):
        return float(now.activations[layer.name][:, unit].abs().mean() * outgoing[layer.name][unit].abs().mean())

    chosen = sorted(units, key=lambda pair: (now.layers.index(pair[0]), utility(*pair)))
    redraw_by_hand(expected, [(layer, unit, spread[layer.name]) for layer, unit in chosen], generator)
    now.stage.generator.manual_seed(1)
    ws.ContinualBackprop(rate=1.0, maturity=0).after_step(now.model, now.stage)
    assert not differing(now.tensors(), expected, near=("0.weight", "3.weight"))


def test_maturity_and_accumulation_by_hand():
    """Eight units, of which a sixteenth is due: half a unit an update, once they are older than three."""
    now, method, counts = Training(), ws.ContinualBackprop(rate=1 / 16, maturity=3), []
    for number in range(11):
        now.update(number)
        method.after_step(now.model, now.stage)
        counts.append((float(now.stage.state["owed of 0"]), int(now.stage.state.get("redrawn of 0", 0))))
    assert counts[:5] == [(0, 0), (0, 0), (0, 0), (0.5, 0), (0.0, 1)]
    assert counts[5:8] == [(7 / 16, 1), (14 / 16, 1), (5 / 16, 2)]
    # Seven are eligible while one is young, and six while two are.
    assert [16 * (owed + redrawn) for owed, redrawn in counts] == [0, 0, 0, 8, 16, 23, 30, 37, 44, 51, 57]


def test_a_rate_of_zero_changes_nothing():
    now, method = Training(), ws.ContinualBackprop(rate=0.0, maturity=0)
    for number in range(5):
        now.update(number)
        before = now.tensors()
        method.after_step(now.model, now.stage)
        assert not differing(now.tensors(), before)
