import math
from dataclasses import replace

import pytest
import torch
from made_stage import SETTINGS, made_examples, same_weights, seed_of
from pytorch_optimizer import Muon
from torch import nn
from torch.nn.functional import cross_entropy

from networks import cnn, mlp
from warmstart.errors import InputError
from warmstart.training import loop
from warmstart.training.examples import Examples
from warmstart.training.loop import Hooks, Progress, batch_slices, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import OPTIMIZERS, Recipe


def fixed_logits(right):
    """A network that learns nothing and gets exactly the images right whose first pixel says so."""

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = nn.Parameter(torch.zeros(()))

        def forward(self, inputs):
            first = inputs[:, 0, 0, 0]
            return torch.stack([first, -first], 1) + 0 * self.idle

    labels = torch.zeros(len(right), dtype=torch.int64)
    images = torch.tensor([255 * r for r in right], dtype=torch.uint8).view(-1, 1, 1, 1)
    return Fixed(), Examples(images, labels, torch.full((1, 1, 1), 127.5), torch.ones(1, 1, 1))


def train(model, examples, *, optimizer="sgd", batch_size=8, until=1.0, max_epochs=3, hooks=None, start=None):
    made = (
        optimizer if not isinstance(optimizer, str) else make_optimizer(Recipe(optimizer=optimizer, **SETTINGS), model)
    )
    # Some ask for more than can be reached, which no user can.
    recipe = Recipe(batch_size=batch_size, max_epochs=max_epochs).model_copy(update={"until": until})
    return train_stage(model, made, examples, recipe, seed_of=seed_of, hooks=hooks, start=start)


def order(count, epoch):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed_of(epoch, 0)))


# --- the stopping rule -------------------------------------------------------------------------------------------


def test_accuracy_is_the_mean_over_batches_so_that_a_short_last_batch_counts_like_the_others():
    right = torch.ones(5, dtype=torch.int64)
    right[order(5, 0)[-1]] = 0  # the single wrong example is alone in the last batch: (1 + 1 + 0) / 3, not 4 / 5

    progress = train(*fixed_logits(right.tolist()), batch_size=2, max_epochs=1)

    assert progress.accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize(("until", "status"), [(2 / 3, "done"), (0.67, "max-epochs")])
def test_a_stage_ends_when_that_mean_reaches_the_threshold(until, status):
    right = torch.ones(5, dtype=torch.int64)
    right[order(5, 0)[-1]] = 0

    assert train(*fixed_logits(right.tolist()), batch_size=2, max_epochs=1, until=until).status == status


@pytest.mark.parametrize(("wrong", "status"), [(16, "done"), (17, "max-epochs")])
def test_16_errors_in_16000_examples_are_exactly_the_threshold_wherever_they_fall(wrong, status):
    for first in (0, 7_000, 15_983):  # in float32 the sum falls short of it or not, as the errors fall into batches
        right = torch.ones(16_000, dtype=torch.int64)
        right[first : first + wrong] = 0
        trained = train(*fixed_logits(right.tolist()), batch_size=128, max_epochs=1, until=0.999)
        assert trained.status == status


def test_accuracy_is_measured_while_training_before_each_update():
    model, examples = cnn(), made_examples()
    expected = []
    reference = cnn()
    optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), reference)
    for index in order(20, 0).split(8):
        inputs = (examples.images[index].float() - 120) / 60
        output = reference(inputs)
        expected.append((output.argmax(1) == examples.labels[index]).float().mean().item())
        optimizer.zero_grad()
        cross_entropy(output, examples.labels[index]).backward()
        optimizer.step()

    assert train(model, examples, max_epochs=1).accuracy == pytest.approx(sum(expected) / len(expected))


def test_a_rule_that_holds_at_once_costs_one_epoch():
    progress = train(*fixed_logits([1, 1, 1]), batch_size=2)

    assert (progress.status, progress.epochs, progress.steps, progress.accuracy) == ("done", 1, 2, 1.0)


def test_max_epochs_ends_a_stage_whose_rule_never_holds():
    progress = train(*fixed_logits([0] * 5), batch_size=2, max_epochs=4)

    assert (progress.status, progress.epochs, progress.steps, progress.accuracy) == ("max-epochs", 4, 12, 0.0)


def test_a_loss_that_is_not_finite_ends_the_stage_as_diverged_though_the_rule_may_hold():
    model, examples = mlp_on_images(), made_examples()
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")

    progress = train(model, examples, until=1e-9)

    assert (progress.status, progress.epochs) == ("diverged", 1)


@pytest.mark.parametrize(("until", "max_epochs"), [(1e-9, 9), (1.1, 1)])
def test_weights_that_blow_up_in_the_last_update_are_noticed(until, max_epochs):
    """The last loss is taken before the last update, so it may be finite where the weights no longer are."""
    model, examples = mlp_on_images(), made_examples(8)
    blow_up = Hooks(after_step=lambda: next(model.parameters()).data.fill_(float("inf")))

    assert train(model, examples, until=until, max_epochs=max_epochs, hooks=blow_up).status == "diverged"


def mlp_on_images(norm=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), *mlp(norm=norm))


def contradictory():
    """Twenty images, each of which is there twice; one in three has two labels."""
    examples = made_examples(20)
    labels = torch.cat([examples.labels, (examples.labels + (torch.arange(20) % 3 == 0)) % 4])
    return replace(examples, images=examples.images.repeat(2, 1, 1, 1), labels=labels)


def test_a_stage_that_has_stopped_rising_ends_as_a_plateau():
    progress = train(cnn(), contradictory(), until=0.999, max_epochs=100_000)

    assert progress.status == "plateau"
    assert progress.epochs >= 200
    assert progress.epochs in {200 * 2**k for k in range(6)}
    assert progress.before_accuracy < 0.999
    assert progress.is_stuck


def test_a_plateau_is_found_in_the_same_epoch_where_the_stage_was_interrupted():
    def trained(model, optimizer, start=None, hooks=None):
        recipe = Recipe(batch_size=8, until=0.999, max_epochs=100_000)
        return train_stage(model, optimizer, contradictory(), recipe, seed_of=seed_of, start=start, hooks=hooks)

    def stop(progress):
        stopped.append(progress)
        if progress.epochs == 150:
            raise KeyboardInterrupt

    model, whole, stopped = cnn(), cnn(), []
    optimizer = make_optimizer(Recipe(**SETTINGS), model)
    with pytest.raises(KeyboardInterrupt):
        trained(model, optimizer, hooks=Hooks(after_epoch=stop))

    there = trained(model, optimizer, start=stopped[-1])
    assert replace(there, seconds=0.0) == replace(
        trained(whole, make_optimizer(Recipe(**SETTINGS), whole)), seconds=0.0
    )
    assert there.status == "plateau"


@pytest.mark.parametrize(
    ("accuracies", "stuck"),
    [
        ([epoch / 10_000 for epoch in range(400)], False),  # it rises ever so slowly
        ([0.5] * 199, False),
        ([0.5] * 200, True),
        ([0.5] * 100 + [0.503] * 100, False),
        ([0.5] * 100 + [0.503] * 299, False),
        ([0.5] * 100 + [0.503] * 300, True),
        ([0.9 + 0.02 * math.sin(epoch**2) for epoch in range(200)], True),  # up and down, with new heights by luck
    ],
)
def test_a_span_without_a_rise_is_a_plateau(accuracies, stuck):
    progress = Progress()
    for accuracy in accuracies:
        progress = loop._closed(replace(progress, accuracy_sum=accuracy, loss_sum=1.0), 1)
    assert progress.is_stuck == stuck


def test_a_loss_that_still_falls_is_no_plateau():
    progress = Progress()
    for epoch in range(400):
        progress = loop._closed(replace(progress, accuracy_sum=0.5, loss_sum=0.99**epoch), 1)
    assert not progress.is_stuck


# --- batches -----------------------------------------------------------------------------------------------------


def lengths(examples, batch_size, *, normalised):
    return [s.stop - s.start for s in batch_slices(examples, batch_size, normalised=normalised)]


def test_a_single_example_that_is_left_joins_the_batch_before_it_only_under_batch_norm():
    assert lengths(17, 8, normalised=True) == [8, 9]
    assert lengths(17, 8, normalised=False) == [8, 8, 1]
    assert lengths(18, 8, normalised=True) == [8, 8, 2]
    assert lengths(16, 8, normalised=True) == [8, 8]


@pytest.mark.parametrize(("examples", "batch_size"), [(1, 8), (5, 1)])
def test_single_examples_alone_cannot_be_batch_normalised(examples, batch_size):
    with pytest.raises(InputError, match="batches of one example cannot be batch-normalised; raise --batch-size"):
        batch_slices(examples, batch_size, normalised=True)
    assert lengths(examples, batch_size, normalised=False) == [1] * examples


def test_a_stage_without_examples_is_refused():
    with pytest.raises(InputError, match="0 examples to train on"):
        batch_slices(0, 8, normalised=True)


# --- against a plain loop ----------------------------------------------------------------------------------------


def plain_loop(model, name, examples, epochs, batch_size=8):
    """What anyone would write in PyTorch; 17 examples make batches of 8 and 9."""
    base = {"lr": SETTINGS["lr"], "weight_decay": SETTINGS["weight_decay"]}
    if name == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), betas=(SETTINGS["momentum"], 0.999), fused=False, **base)
    elif name == "muon":
        matrices = {"momentum": SETTINGS["momentum"], "use_muon": True, "use_adjusted_lr": True}
        rest = {"betas": (SETTINGS["momentum"], 0.999), "eps": 1e-8, "use_muon": False}
        groups = [{"params": [], **base, **kind} for kind in (matrices, rest)]
        for parameter in model.parameters():
            groups[parameter.dim() < 2]["params"].append(parameter)
        optimizer = Muon(groups)
    else:
        optimizer = torch.optim.SGD(model.parameters(), momentum=SETTINGS["momentum"], fused=False, **base)
    model.train()
    for epoch in range(epochs):
        for index in torch.tensor_split(order(len(examples), epoch), [batch_size]):
            inputs, labels = (examples.images[index].float() - 120) / 60, examples.labels[index]
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            if name == "sam":
                at = [p.detach().clone() for p in model.parameters()]
                norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
                with torch.no_grad():
                    for p in model.parameters():
                        p += 0.1 * p.grad / norm
                optimizer.zero_grad()
                cross_entropy(model(inputs), labels).backward()
                with torch.no_grad():
                    for p, old in zip(model.parameters(), at, strict=True):
                        p.copy_(old)
            optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_what_a_plain_pytorch_loop_does(name):
    ours, reference, examples = cnn().double(), cnn().double(), made_examples(17)
    ours, reference = nn.Sequential(ToDouble(), ours), nn.Sequential(ToDouble(), reference)

    progress = train(ours, examples, optimizer=name, max_epochs=4)
    plain_loop(reference, name, examples, epochs=4)

    assert progress.steps == 4 * 2  # a SAM update counts one
    # SAM takes its gradient norm in float32 (see test_optimizers.py); Muon iterates in bf16, which may round otherwise.
    exact = {"sam": 1e-6, "muon": 1e-2}.get(name, 1e-9)
    for (key, mine), theirs in zip(ours.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-6, atol=exact), key


class ToDouble(nn.Module):
    def forward(self, inputs):
        return inputs.double()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_from_an_epoch_boundary_gives_the_same_bits(name):
    through, stopped, examples = with_dropout(), with_dropout(), made_examples(17)
    whole = train(through, examples, optimizer=name, max_epochs=5)

    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), stopped)
    half = train(stopped, examples, optimizer=optimizer, max_epochs=2)
    torch.rand(7)  # whatever happened to the global generator meanwhile
    again = train(
        stopped,
        examples,
        optimizer=optimizer,
        max_epochs=5,
        start=Progress(half.epochs, half.steps, half.accuracy, 10.0),
    )

    assert same_weights(through, stopped)
    assert (again.epochs, again.steps, again.accuracy) == (5, 10, whole.accuracy)
    assert again.seconds > 10.0  # time before the stop counts


def with_dropout():
    return nn.Sequential(nn.Dropout(0.2), cnn())


def test_a_stage_that_is_done_is_not_trained_further():
    model, examples = cnn(), made_examples()

    progress = train(model, examples, start=Progress(3, 9, 1.0, 2.0, "done"))

    assert progress == Progress(3, 9, 1.0, 2.0, "done")
    assert same_weights(model, cnn())


def test_the_order_is_another_one_in_every_epoch():
    seen = []

    class Recording(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2))

        def forward(self, inputs):
            seen.append(inputs.flatten().tolist())
            return inputs.flatten(1) * 0 + self.bias

    images, labels = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(12, dtype=torch.int64)
    examples = Examples(images, labels, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    train(Recording(), examples, batch_size=12, until=1.1, max_epochs=2)

    assert seen[0] != seen[1]
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(12))


# --- hooks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "passes"), [("sgd", 1), ("sam", 2)])
def test_hooks_run_after_each_backward_each_update_and_each_epoch(name, passes):
    model, examples, calls = cnn(), made_examples(), []
    weight = next(model.parameters())
    state = {"before": weight.detach().clone()}

    def after_backward():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
        calls.append("backward")

    def after_step():
        assert not torch.equal(weight, state["before"])
        state["before"] = weight.detach().clone()
        calls.append("step")

    def after_epoch(progress):
        calls.append((progress.epochs, progress.steps, progress.status))

    train(model, examples, optimizer=name, max_epochs=2, hooks=Hooks(after_backward, after_step, after_epoch))

    updates = (["backward"] * passes + ["step"]) * 3
    assert calls == [*updates, (1, 3, "training"), *updates, (2, 6, "max-epochs")]


def test_what_after_backward_does_to_gradients_reaches_the_update():
    model, examples = mlp_on_images(norm=False), made_examples()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def silence():
        for p in model.parameters():
            p.grad.zero_()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, examples, optimizer=optimizer, hooks=Hooks(after_backward=silence))

    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_an_error_in_a_hook_stops_training_at_that_epoch():
    seen = []

    def stop(progress):
        seen.append(progress.epochs)
        if progress.epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cnn(), made_examples(), max_epochs=9, hooks=Hooks(after_epoch=stop))
    assert seen == [1, 2]


def test_progress_is_finite_where_training_is():
    progress = train(cnn(), made_examples(), max_epochs=2)

    assert 0 <= progress.accuracy <= 1
    assert math.isfinite(progress.seconds)
    assert progress.seconds > 0
