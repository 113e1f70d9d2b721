"""Continual backprop against its equations, unit by unit."""

import math

import pytest
import torch
from units_by_hand import NETWORKS, OPTIMIZERS, Training, differing, redraw_by_hand

import warmstart as ws


class LayerByHand:
    """Age, utility and mean activation of each unit of a layer, and how many units it owes."""

    def __init__(self, method, count):
        self.method, self.owed = method, 0.0
        self.age, self.utility, self.mean = ([0.0] * count for _ in range(3))

    def replaced(self, activations, outgoing):
        """The units that are, the least useful first, each with its mean activation; ``outgoing`` are their weights."""
        decay = self.method.decay
        for unit in range(len(self.age)):
            h = activations[:, unit].double()
            self.age[unit] += 1
            contribution = float(h.abs().mean()) * float(outgoing[unit].double().abs().mean())
            self.utility[unit] = decay * self.utility[unit] + (1 - decay) * contribution
            self.mean[unit] = decay * self.mean[unit] + (1 - decay) * float(h.mean())
        eligible = [unit for unit, age in enumerate(self.age) if age > self.method.maturity]
        self.owed += self.method.rate * len(eligible)
        chosen = sorted(eligible, key=lambda unit: self.utility[unit] / (1 - decay ** self.age[unit]))[: int(self.owed)]
        self.owed -= len(chosen)
        means = [self.mean[unit] / (1 - decay ** self.age[unit]) for unit in chosen]
        for unit in chosen:
            self.age[unit] = self.utility[unit] = self.mean[unit] = 0.0
        return list(zip(chosen, means, strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_exactly_the_least_useful_units_are_redrawn_and_the_next_bias_takes_them_up(network, optimizer):
    method = ws.ContinualBackprop(rate=1 / 16, maturity=3, decay=0.9)
    now, generator, redrawn = Training(network, optimizer), torch.Generator(), 0
    hand = {layer.name: LayerByHand(method, len(now.model[int(layer.name)].bias)) for layer in now.layers}
    near = {"0.weight", "3.weight", *(f"{layer.reader}.bias" for layer in now.layers)}
    for number in range(24):
        now.update(number)
        expected = now.tensors()
        now.stage.generator.manual_seed(number)
        generator.manual_seed(number)
        weights, redrawn_now = now.tensors(), []
        for layer in now.layers:
            read = weights[f"{layer.reader}.weight"]
            outgoing = read.split(layer.slots, 1)
            replaced = hand[layer.name].replaced(now.activations[layer.name], outgoing)
            bound = math.sqrt(2) * math.sqrt(3 / weights[f"{layer.name}.weight"][0].numel())
            for unit, mean in replaced:
                # A convolution reads the same mean at each position of its kernel.
                expected[f"{layer.reader}.bias"] += mean * outgoing[unit].flatten(1).sum(1)
                redrawn_now.append((layer, unit, bound))
        redraw_by_hand(expected, redrawn_now, generator)
        redrawn += len(redrawn_now)
        method.after_step(now.model, now.stage)
        assert not differing(now.tensors(), expected, near)
    assert redrawn > 10


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


def test_the_output_is_kept_where_a_unit_gives_the_same_for_all_examples():
    """Without a norm in between, what a constant unit gave goes into the next bias, bit by bit but for rounding."""
    now, method = Training(), ws.ContinualBackprop(rate=1.0, maturity=0, decay=0.5)
    with torch.no_grad():
        now.model[3].weight.zero_()
        now.model[3].bias.fill_(2.0)
    for group in now.optimizer.param_groups:
        group["lr"] = 0.0
    now.update(0)
    before = now.model.eval()(torch.ones(1, 6))
    method.after_step(now.model, now.stage)
    assert not now.model[5].weight.any()
    torch.testing.assert_close(now.model(torch.ones(1, 6)), before)


def test_a_rate_of_zero_changes_nothing():
    now, method = Training(), ws.ContinualBackprop(rate=0.0, maturity=0)
    for number in range(5):
        now.update(number)
        before = now.tensors()
        method.after_step(now.model, now.stage)
        assert not differing(now.tensors(), before)
