"""The recorded step: its logic against a made-up GPU here, and on a real one where there is one."""

import contextlib
import copy
import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from made_stage import SETTINGS, made_examples, same_weights, seed_of
from torch import nn

from networks import cnn
from warmstart.training import step as step_module
from warmstart.training.cuda_graph import WARM_UP, RecordedGradients, can_record
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import OPTIMIZERS, Recipe
from warmstart.training.step import make_step

# --- on a made-up GPU --------------------------------------------------------------------------------------------


class MadeUpGpu:
    """Streams and graphs on the CPU: a graph's replay computes again, on and into the tensors of its recording."""

    def __init__(self):
        self.recording = None
        self.log = []
        self.fails = False
        self.waits = False
        self.stream = SimpleNamespace(wait_stream=lambda other: None)

    def recordable(self, gradients, model, watched, inputs, labels):
        """A pass as a GPU does it: a recording computes nothing."""
        assert all(parameter.grad is None for parameter in model.parameters())  # what lies there would be added to
        if self.recording is None:
            self.log.append(("pass", len(inputs)))
            if self.waits:
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            return gradients(inputs, labels)
        before = copy.deepcopy(model.state_dict())
        results = gradients(inputs, labels)
        model.load_state_dict(before)
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        written = [*results, *gradients_of(model), *(watched[name] for name in sorted(watched))]

        def replay():
            self.log.append(("replay", len(inputs)))
            grads, found = [parameter.grad for parameter in model.parameters()], dict(watched)
            model.zero_grad()
            watched.clear()
            again = gradients(inputs, labels)
            new = [*again, *gradients_of(model), *(watched[name] for name in sorted(watched))]
            for old, value in zip(written, new, strict=True):
                old.copy_(value)
            for parameter, gradient in zip(model.parameters(), grads, strict=True):
                parameter.grad = gradient  # a replay runs no Python: neither backward's nor the hooks'
            watched.clear()
            watched.update(found)

        self.recording.replay = replay
        return results

    @contextlib.contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.recording = graph
        try:
            yield
        finally:
            self.recording = None


def gradients_of(model):
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.fixture
def gpu(monkeypatch):
    made_up = MadeUpGpu()
    generator = SimpleNamespace(
        clone_state=lambda: "as it was", graphsafe_set_state=lambda state: made_up.log.append(("generator", state))
    )
    for name, value in {
        "Stream": lambda device: made_up.stream,
        "graph_pool_handle": lambda: (0, 1),
        "current_stream": lambda device: made_up.stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "CUDAGraph": SimpleNamespace,
        "graph": made_up.graph,
        "default_generators": {None: generator},
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: made_up.log.append(("watch", mode)),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made_up


class Sums:
    """A network whose gradients are seen at a glance: each output is the sum of an input's two numbers."""

    def __init__(self, gpu):
        self.model = nn.Linear(2, 1, bias=False)
        nn.init.ones_(self.model.weight)
        self.model.register_buffer("seen", torch.zeros(()))
        self.watched = {}
        self.recorded = RecordedGradients(
            partial(gpu.recordable, self.gradients, self.model, self.watched), self.model, self.watched
        )

    def gradients(self, inputs, labels):
        output = self.model(inputs)
        output.sum().backward()
        self.watched["output"] = output.detach()
        return output.detach().sum(), labels.float().mean()

    def zeroed_pass(self, count, value):
        """A pass as an update does it: the gradients of the one before are gone."""
        self.model.zero_grad()
        return tuple(float(result) for result in self.recorded(*batch(count, value)))


def batch(count, value):
    return torch.full((count, 2), float(value)), torch.full((count,), value % 2)


def done(gpu, what=("pass", "replay")):
    return [entry for entry in gpu.log if entry[0] in what]


def test_a_shape_is_passed_three_times_then_recorded_and_every_batch_is_passed_once(gpu):
    sums, found = Sums(gpu), []

    for value in range(1, 7):
        found.append((*sums.zeroed_pass(4, value), *sums.model.weight.grad.flatten().tolist()))

    assert done(gpu) == [("pass", 4)] * WARM_UP + [("replay", 4)] * 3
    assert found == [(8.0 * value, value % 2, 4.0 * value, 4.0 * value) for value in range(1, 7)]


def test_each_shape_has_a_recording_and_gradients_and_activations_of_its_own(gpu):
    sums = Sums(gpu)

    for value in range(1, 8):
        for count in (4, 3):
            sums.zeroed_pass(count, value)
            assert sums.model.weight.grad.tolist() == [[count * value] * 2]
            assert {name: x.tolist() for name, x in sums.watched.items()} == {"output": [[2 * value]] * count}

    assert done(gpu) == [("pass", 4), ("pass", 3)] * WARM_UP + [("replay", 4), ("replay", 3)] * 4


def test_a_replay_leaves_its_own_gradients_and_activations_whatever_was_done_to_the_last_ones(gpu):
    sums = Sums(gpu)
    for _ in range(5):
        sums.zeroed_pass(4, 1)
    sums.model.weight.grad.fill_(7.0)
    sums.watched["output"] = sums.watched["another"] = torch.ones(1)

    sums.recorded(*batch(4, 2))  # not zeroed either

    assert sums.model.weight.grad.tolist() == [[8.0, 8.0]]
    assert {name: x.tolist() for name, x in sums.watched.items()} == {"output": [[4.0]] * 4}


def test_the_second_pass_of_an_update_reads_new_weights_and_leaves_the_results_of_the_first(gpu):
    sums = Sums(gpu)
    for _ in range(4):
        sums.zeroed_pass(4, 1)

    first = sums.recorded(*batch(4, 2))
    with torch.no_grad():
        sums.model.weight.mul_(2.0)
    second = sums.recorded(*batch(4, 2))

    assert (first[0].item(), second[0].item()) == (16.0, 32.0)


def test_where_recording_fails_training_goes_on_with_one_line_of_warning(gpu):
    gpu.fails = True
    sums = Sums(gpu)
    for _ in range(WARM_UP):
        sums.zeroed_pass(4, 1)

    with pytest.warns(UserWarning, match="without a CUDA graph, which is slower: operation not permitted") as seen:
        sums.zeroed_pass(4, 1)
    assert sums.model.weight.grad.tolist() == [[4.0, 4.0]]  # nothing of the failed recording's is in it
    sums.zeroed_pass(4, 1)
    sums.zeroed_pass(3, 1)

    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert [name for name, _ in done(gpu)] == ["pass"] * 6
    assert done(gpu, ("generator",)) == [("generator", "as it was")]


def test_a_pass_that_waits_for_the_gpu_is_not_recorded_at_all(gpu):
    gpu.waits = True
    sums = Sums(gpu)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sums.zeroed_pass(4, 1)
        sums.zeroed_pass(4, 1)

    with pytest.warns(UserWarning, match=r"slower: .*test_cuda_graph.py:\d+ waits for the GPU"):
        sums.zeroed_pass(4, 1)

    gpu.waits = False
    sums.zeroed_pass(4, 1)
    assert [name for name, _ in done(gpu)] == ["pass"] * 4
    assert done(gpu, ("watch",)) == [("watch", "warn"), ("watch", 0)]


@pytest.mark.parametrize(("replaced", "loss"), [("weight", 24.0), ("seen", 8.0)])
def test_a_network_whose_tensors_were_replaced_is_not_trained_by_recordings_of_the_old_ones(gpu, replaced, loss):
    sums = Sums(gpu)
    for _ in range(5):
        sums.zeroed_pass(4, 1)

    if replaced == "weight":
        sums.model.weight.data = torch.full((1, 2), 3.0)
    else:
        sums.model.seen = torch.ones(())
    with pytest.warns(UserWarning, match="slower: a parameter or buffer was given other memory; change it in place"):
        found, _ = sums.zeroed_pass(4, 1)

    assert found == loss
    assert [name for name, _ in done(gpu)] == ["pass"] * WARM_UP + ["replay"] * 2 + ["pass"]


@pytest.mark.parametrize("acting", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stage_is_trained_by_replays_as_by_a_plain_loop_whatever_acts_on_updates(gpu, monkeypatch, name, acting):
    plain = acted_on(name, acting)
    watched = {}
    pass_ = step_module._gradients

    def recordable(model, precision, shares, smoothing, inputs, labels):
        return gpu.recordable(partial(pass_, model, precision, shares, smoothing), model, watched, inputs, labels)

    monkeypatch.setattr(step_module, "_gradients", recordable)
    monkeypatch.setattr(step_module, "can_record", lambda model: True)
    replayed = acted_on(name, acting, watched)

    assert same_weights(replayed.model, plain.model)
    assert (replayed.sums, replayed.rates) == (plain.sums, plain.rates)
    passes = 2 if name == "sam" else 1
    assert len(plain.sums) == (20 * (passes + 1) if acting else 0)
    # Five epochs of three batches of 16 and one of 14.
    assert sum(what == "replay" for what, _ in gpu.log) == 20 * passes - 2 * WARM_UP
    assert sum(what == "pass" for what, _ in gpu.log) == 2 * WARM_UP


def bare_cnn():
    """Without the biases that batch norm undoes: their gradient is rounding alone, and AdamW makes a step of it."""
    network = cnn()
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.bias = None
    return network


def acted_on(name, acting, watched=None, device="cpu", captured=True):
    """A stage with a method that changes gradients, rates and weights, and reads activations."""
    model, sums, rates = bare_cnn().to(device), [], []
    watched = {} if watched is None else watched
    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), model)
    model[5].register_forward_hook(lambda layer, inputs, output: watched.update(units=output.detach()))

    def after_backward():
        sums.append(watched["units"].sum().item())
        rates.append(optimizer.param_groups[0]["lr"])
        model[0].weight.grad.mul_(0.5)
        model[8].bias.grad = torch.ones(4, device=device)
        if len(rates) % 3 == 0:
            optimizer.param_groups[0]["lr"] *= 3

    def after_step():
        sums.append(watched["units"].sum().item())
        with torch.no_grad():
            model[3].weight.mul_(0.99)

    hooks = Hooks(after_backward, after_step, watched=watched) if acting else Hooks(watched=watched)
    recipe = Recipe(
        batch_size=16, epochs=5, schedule="step", milestones=(2, 4), warmup=1, precision="fp32", captured=captured
    )
    examples = made_examples(62)
    examples = type(examples)(*(getattr(examples, field).to(device) for field in ("images", "labels", "mean", "std")))
    train_stage(model, optimizer, examples, recipe, seed_of=seed_of, hooks=hooks)
    return SimpleNamespace(model=model, sums=sums, rates=rates)


def test_on_the_cpu_nothing_can_be_recorded():
    assert not can_record(cnn())


# --- on a real one -----------------------------------------------------------------------------------------------

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def trained_on_gpu(captured, name="sgd", network=bare_cnn, hooks=None, **settings):
    """Five epochs of four batches, the last of which is smaller."""
    model = network().cuda()
    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), model)
    examples = made_examples(62)
    examples = type(examples)(*(getattr(examples, field).cuda() for field in ("images", "labels", "mean", "std")))
    recipe = Recipe(batch_size=16, epochs=5, precision="fp32", captured=captured, **settings)
    progress = train_stage(model, optimizer, examples, recipe, seed_of=seed_of, hooks=hooks)
    return model, optimizer, progress


def assert_near(model, other):
    for ours, theirs in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@on_gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_recorded_steps_are_those_of_the_plain_loop(name):
    settings = {"schedule": "step", "milestones": (2, 4), "warmup": 1, "augment": ("crop", "flip")}
    fast, optimizer, progress = trained_on_gpu(True, name, **settings)
    plain, _, expected = trained_on_gpu(False, name, **settings)

    assert (progress.steps, progress.accuracy) == (20, pytest.approx(expected.accuracy, abs=0.05))
    for key, tensor in fast.state_dict().items():
        torch.testing.assert_close(
            tensor, plain.state_dict()[key], rtol=1e-3, atol=1e-4, msg=lambda m, key=key: key + m
        )
    assert optimizer.param_groups[0]["lr"] == SETTINGS["lr"]
    assert not optimizer.param_groups[0].get("capturable")


@pytest.fixture
def replays(monkeypatch):
    """One entry for each replay of a CUDA graph."""
    seen, replay = [], torch.cuda.CUDAGraph.replay

    def noted(graph):
        seen.append(graph)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", noted)
    return seen


@on_gpu
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_really_recorded(name, precision, replays):
    model = cnn().cuda()
    step = make_step(model, make_optimizer(Recipe(optimizer=name, **SETTINGS), model), precision=precision)
    inputs, labels = torch.randn(8, 3, 6, 6, device="cuda"), torch.randint(4, (8,), device="cuda")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = [step(inputs, labels)[0].item() for _ in range(10)]

    assert len(replays) == 10 * (2 if name == "sam" else 1) - WARM_UP
    assert len(set(replays)) == 1
    assert losses[-1] < losses[0]  # one batch, again and again


@on_gpu
def test_dropout_draws_anew_in_each_replay_and_the_seed_decides():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(108, 4))

    first, _, _ = trained_on_gpu(True, network=network)
    again, _, _ = trained_on_gpu(True, network=network)
    plain, _, _ = trained_on_gpu(False, network=network)

    assert_near(first, again)
    assert_near(first, plain)


@on_gpu
def test_a_network_that_asks_the_gpu_is_trained_all_the_same():
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn()

        def forward(self, inputs):
            return self.net(inputs) * (1.0 if inputs.sum().item() else 2.0)

    with pytest.warns(UserWarning, match="waits for the GPU"):
        asking, _, progress = trained_on_gpu(True, network=Asking)
    plain, _, _ = trained_on_gpu(False, network=Asking)

    assert progress.steps == 20
    assert_near(asking, plain)


@on_gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_method_that_acts_on_updates_is_trained_by_replays_and_as_the_plain_loop_trains_it(name, replays):
    fast = acted_on(name, True, device="cuda")
    count = len(replays)
    plain = acted_on(name, True, device="cuda", captured=False)

    assert count == len(replays) == 20 * (2 if name == "sam" else 1) - 2 * WARM_UP
    assert_near(fast.model, plain.model)
    torch.testing.assert_close(fast.sums, plain.sums, rtol=1e-3, atol=1e-3)
    assert fast.rates == plain.rates
