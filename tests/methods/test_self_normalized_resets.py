"""Self-normalised resets against their equations, unit by unit."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from units_by_hand import NETWORKS, OPTIMIZERS, Training, differing, redraw_by_hand, usual_bound

import warmstart as ws
from warmstart.integrations import WarmStart


class UnitByHand:
    """The age of one unit, the ages at which it fired or was redrawn, and its threshold."""

    def __init__(self, method):
        self.method, self.age, self.noted, self.tau = method, 0, [], max(1, method.tau_max // 2)

    def set_anew(self):
        """Its threshold, where a window of arrivals ends."""
        self.tau = self.threshold()
        self.noted = []

    def is_redrawn(self, silent):
        """Whether it is, after a batch that left it silent or did not."""
        if silent:
            self.age += 1
        else:
            self.note()
        if self.age < self.tau:
            return False
        self.note()
        return True

    def note(self):
        self.noted.append(min(self.age, self.method.tau_max))
        self.age = 0

    def threshold(self):
        silences = [age for age in self.noted if age > 0]
        shares = {age: sum(other <= age for other in silences) / len(silences) for age in silences}
        q = min((age for age, share in shares.items() if share >= self.method.percentile), default=0)
        tau = q if q < self.tau else 2 * self.tau
        return min(max(tau, 1), self.method.tau_max)


@pytest.mark.parametrize(
    ("network", "optimizer"), [*((network, "sgd") for network in NETWORKS), *(("cnn", name) for name in OPTIMIZERS[1:])]
)
def test_exactly_the_units_with_unusual_silence_are_redrawn_with_their_moments(network, optimizer):
    """Data arrives before every fourth update but the first; thresholds are set anew at every other arrival."""
    method = ws.SelfNormalizedResets(percentile=0.75, every=2, tau_max=6)
    now, generator, redrawn = Training(network, optimizer, size=2), torch.Generator(), []
    with torch.no_grad():
        now.model[3].bias.sub_(0.3)
    hand = {layer.name: [UnitByHand(method) for _ in now.model[int(layer.name)].bias] for layer in now.layers}
    for number in range(48):
        if number % 4 == 0 and number > 0:
            method.on_new_data(now.model, now.stage)
        if number % 8 == 0 and number > 0:
            for by_hand in (unit for units in hand.values() for unit in units):
                by_hand.set_anew()
        now.update(number)
        expected = now.tensors()
        now.stage.generator.manual_seed(number)
        generator.manual_seed(number)
        chosen = []
        for layer in now.layers:
            for unit, by_hand in enumerate(hand[layer.name]):
                silent = not (now.activations[layer.name][:, unit] > 0).any()
                if by_hand.is_redrawn(silent):
                    chosen.append((layer, unit, usual_bound(expected, layer)))
                    redrawn.append(number)
        redraw_by_hand(expected, chosen, generator)
        method.after_step(now.model, now.stage)
        assert not differing(now.tensors(), expected, near=("0.weight", "3.weight"))
        for layer in now.layers:
            assert now.stage.state[f"tau of {layer.name}"].tolist() == [unit.tau for unit in hand[layer.name]]
            assert now.stage.state[f"ages of {layer.name}"].tolist() == [unit.age for unit in hand[layer.name]]
    assert len(set(redrawn)) > 3


def test_thresholds_by_hand():
    method = ws.SelfNormalizedResets(percentile=0.9, every=16, tau_max=8)
    noted = torch.tensor(
        [
            [5, 9, 0, 1, 0, 0, 0, 0, 0],  # nine silences of 1, one of 3: 90 % are of at most 1
            [0, 8, 0, 2, 0, 0, 0, 0, 0],  # 80 % are of at most 1, all of at most 3
            [0, 0, 0, 0, 0, 0, 0, 1, 0],  # 7, which is not below 5
            [0, 0, 0, 0, 0, 1, 0, 0, 0],  # 5, which is not below 5 either
            [99, 0, 0, 0, 0, 0, 0, 0, 0],  # it has never been silent
            [0, 0, 0, 0, 0, 0, 0, 0, 0],  # silent throughout
            [0, 0, 0, 0, 0, 0, 0, 0, 3],
        ]
    )
    tau = torch.tensor([5, 5, 5, 5, 5, 5, 3])
    assert method.thresholds(noted, tau).tolist() == [1, 3, 8, 8, 1, 1, 6]


def test_a_unit_that_dies_is_redrawn_once_its_threshold_is_reached():
    now, method = Training(), ws.SelfNormalizedResets(every=100, tau_max=8)
    now.optimizer.param_groups[0]["lr"] = 0.0
    for update in range(12):
        with torch.no_grad():
            now.model[1].bias.fill_(5.0)
            if update >= 5:
                now.model[1].bias[2] = -50.0
            now.model[3].bias.fill_(500.0)
        now.update(update)
        method.after_step(now.model, now.stage)
        # It fires for 5 updates, and its threshold is 4 until data has arrived a hundred times.
        assert int(now.stage.state.get("redrawn of 0", 0)) == (update >= 8), update
        assert bool(now.model[3].weight[:, 2].any()) == (update < 8)


def test_arrivals_are_counted_over_the_restarts_of_a_loop_of_your_own():
    now, method, saved = Training(), ws.SelfNormalizedResets(every=3), {}
    for arrival in range(1, 8):
        warm_start = WarmStart(method, now.batches, cross_entropy, arrival=f"month {arrival}")
        warm_start.load_state_dict(saved)
        warm_start.apply_(now.model, now.optimizer)
        saved = warm_start.state_dict()
        assert int(saved["state"]["arrivals"]) == arrival
        if arrival > 1:
            assert bool(saved["state"]["noted ages of 0"].any()) == (arrival % 3 != 0), arrival
        for step in range(4):
            inputs, targets = now.batches[4 * arrival + step]
            cross_entropy(now.model(inputs), targets).backward()
            warm_start.after_step(now.model, step)
        saved = warm_start.state_dict()
