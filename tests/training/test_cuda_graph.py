"""The recorded step: its logic against a made-up GPU here, and on a real one where there is one."""

import contextlib
import warnings
from types import SimpleNamespace

import pytest
import torch
from made_stage import SETTINGS, made_examples, seed_of
from torch import nn

from networks import cnn
from warmstart.training.cuda_graph import WARM_UP, CapturedStep, can_capture
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import OPTIMIZERS, Recipe
from warmstart.training.schedule import Schedule
from warmstart.training.step import make_step

# --- on a made-up GPU --------------------------------------------------------------------------------------------


class MadeUpGpu:
    """Streams and graphs that only note what happens: a graph's replay does the step again, on the recorded tensors."""

    def __init__(self):
        self.recording = None
        self.log = []
        self.fails = False
        self.waits = False

    def step(self, inputs, labels):
        """A step that can be recorded: its results are written where they were."""
        rate = self.group["lr"]
        if self.recording is None:
            self.log.append(("step", len(inputs), rate))
            if self.waits:
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            return inputs.sum(), labels.float().mean()
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        assert self.group["capturable"]
        results = torch.zeros(()), torch.zeros(())

        def replay():
            self.log.append(("replay", len(inputs), rate.item()))
            results[0].copy_(inputs.sum())
            results[1].copy_(labels.float().mean())

        self.recording.replay = replay
        return results

    @contextlib.contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.recording = graph
        try:
            yield
        finally:
            self.recording = None


@pytest.fixture
def gpu(monkeypatch):
    made_up = MadeUpGpu()
    weight = nn.Parameter(torch.zeros(1))
    made_up.group = {"params": [weight], "lr": 0.5, "fused": True, "capturable": False}
    made_up.optimizer = SimpleNamespace(param_groups=[made_up.group])
    made_up.stream = SimpleNamespace(wait_stream=lambda other: None)
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


def batch(count, value):
    return torch.full((count, 2), float(value)), torch.full((count,), value % 2)


def done(gpu, what):
    return [entry for entry in gpu.log if entry[0] in what]


def test_a_shape_is_trained_three_times_then_recorded_and_every_batch_is_trained_once(gpu):
    step = CapturedStep(gpu.step, gpu.optimizer)

    results = [tuple(float(x) for x in step(*batch(4, value))) for value in range(1, 7)]

    assert done(gpu, ("step", "replay")) == [("step", 4, 0.5)] * WARM_UP + [("replay", 4, 0.5)] * 3
    assert results == [(8.0 * value, value % 2) for value in range(1, 7)]


def test_each_shape_has_a_recording_of_its_own(gpu):
    step = CapturedStep(gpu.step, gpu.optimizer)

    for _ in range(5):
        step(*batch(4, 1))
        step(*batch(3, 1))

    one = [("step", 4, 0.5), ("step", 3, 0.5)]
    assert done(gpu, ("step", "replay")) == one * 3 + [("replay", 4, 0.5), ("replay", 3, 0.5)] * 2


def test_a_new_learning_rate_reaches_the_recording_and_the_group_keeps_plain_numbers(gpu):
    step = CapturedStep(gpu.step, gpu.optimizer)

    for value in range(1, 9):
        gpu.group["lr"] = value / 16
        step(*batch(4, 1))
        assert gpu.group["lr"] == value / 16
        assert gpu.group["capturable"] is False

    assert [rate for *_, rate in done(gpu, ("step", "replay"))] == [value / 16 for value in range(1, 9)]


def test_where_recording_fails_training_goes_on_with_one_line_of_warning(gpu):
    gpu.fails = True
    step = CapturedStep(gpu.step, gpu.optimizer)
    for _ in range(WARM_UP):
        step(*batch(4, 1))

    with pytest.warns(UserWarning, match="without a CUDA graph, which is slower: operation not permitted") as seen:
        step(*batch(4, 1))
    step(*batch(4, 1))
    step(*batch(3, 1))

    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert [name for name, *_ in done(gpu, ("step", "replay"))] == ["step"] * 6
    assert done(gpu, ("generator",)) == [("generator", "as it was")]
    assert gpu.group["lr"] == 0.5


def test_a_step_that_waits_for_the_gpu_is_not_recorded_at_all(gpu):
    gpu.waits = True
    step = CapturedStep(gpu.step, gpu.optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step(*batch(4, 1))
        step(*batch(4, 1))

    with pytest.warns(UserWarning, match=r"slower: .*test_cuda_graph.py:\d+ waits for the GPU"):
        step(*batch(4, 1))

    gpu.waits = False
    step(*batch(4, 1))
    assert [name for name, *_ in done(gpu, ("step", "replay"))] == ["step"] * 4
    assert done(gpu, ("watch",)) == [("watch", "warn"), ("watch", 0)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_the_cpu_no_step_can_be_recorded(name):
    model = cnn()

    assert not can_capture(model, make_optimizer(Recipe(optimizer=name, **SETTINGS), model))


# --- on a real one -----------------------------------------------------------------------------------------------

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def bare_cnn():
    """Without the biases that batch norm undoes: their gradient is rounding alone, and AdamW makes a step of it."""
    network = cnn()
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.bias = None
    return network


def trained_on_gpu(captured, name="sgd", network=bare_cnn, hooks=None, **settings):
    """Five epochs of four batches, the last of which is smaller."""
    model = network().cuda()
    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), model)
    examples = made_examples(62)
    examples = type(examples)(*(getattr(examples, field).cuda() for field in ("images", "labels", "mean", "std")))
    recipe = Recipe(batch_size=16, until=None, max_epochs=5, precision="fp32", captured=captured, **settings)
    progress = train_stage(model, optimizer, examples, recipe, seed_of=seed_of, hooks=hooks)
    return model, optimizer, progress


def assert_near(model, other):
    for ours, theirs in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@on_gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_recorded_steps_are_those_of_the_plain_loop(name):
    settings = {"schedule": Schedule((2, 4), 0.5, 1), "augmentation": ("crop", "flip")}
    fast, optimizer, progress = trained_on_gpu(True, name, **settings)
    plain, _, expected = trained_on_gpu(False, name, **settings)

    assert (progress.steps, progress.accuracy) == (20, pytest.approx(expected.accuracy, abs=0.05))
    for key, tensor in fast.state_dict().items():
        torch.testing.assert_close(
            tensor, plain.state_dict()[key], rtol=1e-3, atol=1e-4, msg=lambda m, key=key: key + m
        )
    assert optimizer.param_groups[0]["lr"] == SETTINGS["lr"]
    assert not optimizer.param_groups[0].get("capturable")


@on_gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_really_recorded(name):
    model = cnn().cuda()
    step = make_step(model, make_optimizer(Recipe(optimizer=name, **SETTINGS), model))
    inputs, labels = torch.randn(8, 3, 6, 6, device="cuda"), torch.randint(4, (8,), device="cuda")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = [step(inputs, labels)[0].item() for _ in range(10)]

    assert isinstance(step, CapturedStep)
    assert list(step._recordings) == [inputs.shape]
    assert losses == sorted(losses, reverse=True)  # one batch, again and again


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
def test_bf16_is_recorded_too():
    model = cnn().cuda()
    step = make_step(model, make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model), precision="bf16")
    inputs, labels = torch.randn(8, 3, 6, 6, device="cuda"), torch.randint(4, (8,), device="cuda")
    losses = [step(inputs, labels)[0].item() for _ in range(10)]

    assert list(step._recordings) == [inputs.shape]
    assert losses[-1] < losses[0]


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
def test_a_method_that_acts_on_updates_is_called_at_each_of_them():
    calls = []
    trained_on_gpu(True, hooks=Hooks(after_step=lambda: calls.append(None)))

    assert len(calls) == 20
