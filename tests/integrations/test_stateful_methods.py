"""Methods that prepare the network, keep tensors, see activations, change rates and moments: the same in every loop."""

import copy
import gc

import pytest
import torch
from arrivals import EXAMPLES, assert_equal, months, weights
from loops import BATCH, LOOPS, LR, InterruptedRunError
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import warmstart as ws
from stateful_methods import AgeAndRedraw, SlowCopy
from warmstart.integrations import WarmStart

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
METHODS = (
    *(SlowCopy(), AgeAndRedraw(), ws.HareTortoise(momentum=0.9, updates=3)),
    *(ws.Redo(0.9, 2), ws.ContinualBackprop(0.1, 1), ws.SelfNormalizedResets(0.9, 2, 2)),
)
IN_LOOPS = (
    *(("accelerate", method) for method in METHODS),
    # The first two together use everything that a method may.
    *((loop, method) for loop in ("bare", "lightning", "hugging-face") for method in METHODS[:2]),
)
each_method_in_its_loops = pytest.mark.parametrize(("loop", "method"), IN_LOOPS, indirect=["loop"], ids=str)


class Network(nn.Module):
    """Dropout, batch norm, and units that feed a convolution and a linear layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 4)),
        )

    def forward(self, pixel_values, labels):
        logits = self.layers(pixel_values)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def made():
    torch.manual_seed(0)
    return Network()


@pytest.fixture(params=LOOPS)
def loop(request):
    return LOOPS[request.param]


def trained(loop, method, folder, **options):
    """A network that a loop has trained, and what was applied to it."""
    data, network = months("cnn"), made()
    warm_start = loop.WarmStart(method, DataLoader(data, batch_size=BATCH))
    warm_start.prepare(network)
    loop.train(network, data, folder, warm_start, epochs=4, accumulate=2, **options)
    return network, warm_start


def inner(name):
    """A tensor's name without the wrapper's prefix, which Lightning adds."""
    return name.replace("network.", "")


@each_method_in_its_loops
def test_interrupted_and_resumed_all_is_as_without(method, loop, tmp_path):
    undisturbed, once = trained(loop, method, tmp_path / "undisturbed")
    with pytest.raises(InterruptedRunError):
        trained(loop, method, tmp_path / "again", stop_at=3)
    resumed, again = trained(loop, method, tmp_path / "again", resume=True)
    assert_equal(resumed, undisturbed)
    assert once.state_dict()["state"]
    assert_equal(again.state_dict()["state"], once.state_dict()["state"])


@each_method_in_its_loops
def test_it_is_what_a_bare_loop_gives(method, loop, tmp_path):
    by_hand, expected = trained(LOOPS["bare"], method, tmp_path / "bare")
    network, found = trained(loop, method, tmp_path / "loop")
    for name, tensor in weights(network).items():
        torch.testing.assert_close(tensor, weights(by_hand)[name], rtol=1e-5, atol=1e-6)
    ours = {inner(name): tensor for name, tensor in found.state_dict()["state"].items()}
    for name, tensor in expected.state_dict()["state"].items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_raised_rate_holds_for_one_update_and_the_schedule_goes_on_from_its_own(loop, tmp_path):
    rates = loop.train(made(), months("cnn"), tmp_path / "plain", epochs=2)
    warm_start = loop.WarmStart(SlowCopy(), DataLoader(months("cnn"), batch_size=BATCH))
    raised = loop.train(made(), months("cnn"), tmp_path / "raised", warm_start, epochs=2)
    assert rates[0] == LR
    assert raised == pytest.approx([own * (1 + 2 * 0.5 ** (step / 8)) for step, own in enumerate(rates)])


def test_the_slow_copy_is_measured_and_shares_no_memory():
    network = made()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    warm_start = WarmStart(SlowCopy(), DataLoader(months("cnn"), batch_size=BATCH))
    warm_start.apply_(network, optimizer)
    first, slow = weights(network), weights(network)
    for step in range(3):
        network(**months("cnn").batch(0, 4))["loss"].backward()
        warm_start.after_backward(network, step)
        optimizer.step()
        warm_start.after_step(network, step)
        for name, fast in weights(network).items():
            slow[name] = slow[name].lerp(fast, 0.1) if step and fast.is_floating_point() else fast
    served = warm_start.measured(network)
    assert_equal(served, slow)
    assert not torch.equal(served.layers[0].weight, network.layers[0].weight)
    trained_weights = weights(network)
    for parameter in served.parameters():
        parameter.detach().zero_()
    assert_equal(network, trained_weights)
    assert not torch.equal(first["layers.0.weight"], trained_weights["layers.0.weight"])


def test_another_method_measures_the_network_itself():
    network = made()
    assert WarmStart(ws.Dash(), [1]).measured(network) is network


def test_activations_are_those_of_the_batch_micro_batches_joined_and_no_validations():
    found = []

    class Spy(AgeAndRedraw):
        def after_step(self, model, stage):
            found.append({name: len(rows) for name, rows in stage.activations.items()})

    network, data = made(), months("cnn")
    warm_start = WarmStart(Spy(), DataLoader(data, batch_size=BATCH))
    warm_start.prepare(network)
    warm_start.apply_(network)
    for first in (0, 4):
        network.train()
        network(**data.batch(first, first + 4))["loss"].backward()
        network.eval()
        network(**data.batch(8, 16))  # a validation in between
    network.train()
    with torch.no_grad():
        network(**data.batch(8, 16))
    warm_start.after_backward(network, 0)
    warm_start.after_step(network, 0)
    warm_start.after_step(network, 1)
    assert found == [{"layers.0": 8 * 36, "layers.3": 8 * 16, "layers.7": 8}, {}]

    network.train()
    for _ in range(2):  # SAM's passes, each of two micro-batches
        for first in (0, 4):
            network(**data.batch(first, first + 4))["loss"].backward()
        warm_start.after_backward(network, 2)
    warm_start.after_step(network, 2)
    assert found[-1] == found[0]


def hooks_of(network):
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in network.modules())


def test_hooks_are_there_only_where_activations_are_asked_for_and_go_with_their_warm_start():
    network, loader = made(), DataLoader(months("cnn"), batch_size=BATCH)
    WarmStart(SlowCopy(), loader).apply_(network)
    assert hooks_of(network) == 0
    warm_start = WarmStart(AgeAndRedraw(), loader)
    warm_start.prepare(network)
    warm_start.apply_(network)
    hooks = hooks_of(network)
    assert hooks > 0
    warm_start.apply_(network)
    warm_start.measured(network)
    assert hooks_of(network) == hooks
    del warm_start
    gc.collect()
    assert hooks_of(network) == 0


def test_a_network_that_was_not_prepared_is_refused():
    network = made()
    warm_start = WarmStart(AgeAndRedraw(), DataLoader(months("cnn"), batch_size=BATCH))
    with pytest.raises(ws.InputError, match=r"call prepare\(model\) right after making it"):
        warm_start.apply_(network)


def test_an_optimizer_made_too_early_is_refused():
    network = made()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    warm_start = WarmStart(AgeAndRedraw(), DataLoader(months("cnn"), batch_size=BATCH))
    warm_start.prepare(network)
    with pytest.raises(ws.InputError, match=r"does not hold layers\.2\.weight, which age-and-redraw put into"):
        warm_start.apply_(network, optimizer)


def test_a_network_is_prepared_once_and_its_copies_are_prepared_with_it():
    network = made()
    warm_start = WarmStart(AgeAndRedraw(), [1])
    warm_start.prepare(network)
    first = network.layers[2]
    assert isinstance(first, nn.PReLU)
    WarmStart(AgeAndRedraw(), [1]).prepare(network)
    assert network.layers[2] is first
    WarmStart(AgeAndRedraw(), DataLoader(months("cnn"), batch_size=BATCH)).apply_(copy.deepcopy(network))


def test_fresh_networks_are_prepared_too():
    class Drawn(AgeAndRedraw):
        def on_new_data(self, model, stage):
            return ws.cold_(model, stage.fresh())

    network = made()
    warm_start = WarmStart(Drawn(), DataLoader(months("cnn"), batch_size=BATCH), make_model=made)
    warm_start.prepare(network)
    assert "drawn anew" in str(warm_start.apply_(network))


def test_reading_units_leaves_no_trace():
    network = made()
    network.train()
    network.layers[1].eval()
    before, random_state = weights(network), torch.get_rng_state()
    WarmStart(AgeAndRedraw(), DataLoader(months("cnn"), batch_size=BATCH)).prepare(network)
    warm_start = WarmStart(AgeAndRedraw(), DataLoader(months("cnn"), batch_size=BATCH))
    flags = [layer.training for layer in network.modules()]
    warm_start.apply_(network)
    assert {name: tensor for name, tensor in weights(network).items() if name in before}.keys() == before.keys()
    assert_equal({name: weights(network)[name] for name in before}, before)
    assert [layer.training for layer in network.modules()] == flags
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_another_networks_state_is_not_taken_over():
    loader = DataLoader(months("cnn"), batch_size=BATCH)
    warm_start = WarmStart(SlowCopy(), loader)
    for network in (made(), made()):
        warm_start.apply_(network)
        assert warm_start.state_dict()["state"] == {}
        warm_start.after_step(network, 0)
        assert len(warm_start.state_dict()["state"]) == len(network.state_dict())


def test_a_checkpoint_of_an_older_version_has_no_state_and_works():
    loader = DataLoader(months("cnn"), batch_size=BATCH)
    network, old = made(), WarmStart(SlowCopy(), loader)
    old.apply_(network)
    remembered = {name: value for name, value in old.state_dict().items() if name != "state"}
    resumed = WarmStart(SlowCopy(), loader)
    resumed.load_state_dict(remembered)
    assert resumed.apply_(network) is None
    assert resumed.state_dict()["state"] == {}


class Careless(SlowCopy):
    kept = None

    def after_step(self, model, stage):
        stage.state["kept"] = self.kept or model.layers[0].weight


@pytest.mark.parametrize(("kept", "message"), [(None, "own memory: keep a copy"), (3, "'kept': a int in stage.state")])
def test_what_cannot_be_restored_is_refused_as_it_is_saved(kept, message, monkeypatch):
    monkeypatch.setattr(Careless, "kept", kept)
    network = made()
    warm_start = WarmStart(Careless(), DataLoader(months("cnn"), batch_size=BATCH))
    warm_start.apply_(network)
    warm_start.after_step(network, 0)
    with pytest.raises(ws.InputError, match=message) as refused:
        warm_start.state_dict()
    assert "\n" not in str(refused.value)


def test_a_copy_that_is_measured_has_no_hooks():
    class Copied(AgeAndRedraw):
        def measured(self, model, state):
            return copy.deepcopy(model)

    network, warm_start = made(), WarmStart(Copied(), DataLoader(months("cnn"), batch_size=BATCH))
    warm_start.prepare(network)
    warm_start.apply_(network)
    assert hooks_of(warm_start.measured(network)) == 0
    assert hooks_of(network) > 0


class Alias(SlowCopy):
    def measured(self, model, state):
        other = made()
        other.layers[0].weight = model.layers[0].weight
        return other


def test_a_measured_network_that_shares_memory_is_refused():
    with pytest.raises(ws.InputError, match=r"slow-copy\.measured returns shares the memory of layers\.0\.weight"):
        WarmStart(Alias(), [1]).measured(made())


def test_the_optimizer_is_there_at_new_data_and_at_updates():
    seen = []

    class Watcher(ws.Method):
        def on_new_data(self, model, stage):
            seen.append(stage.optimizer)
            return super().on_new_data(model, stage)

        def after_step(self, model, stage):
            seen.append((stage.optimizer, stage.step))

    network = made()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    warm_start = WarmStart(Watcher(), DataLoader(months("cnn"), batch_size=EXAMPLES))
    warm_start.apply_(network, optimizer)
    warm_start.after_step(network, 7)
    assert seen == [optimizer, (optimizer, 7)]
