"""What becomes of optimizer, schedule and batch-norm statistics, and that the report says so."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained

OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name not in ("Optimizer", "SparseAdam")
)
OTHER_SHAPES = {"Adafactor", "LBFGS"}


def make(name, model):
    if name == "SAM":
        from pytorch_optimizer import SAM

        return SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.01, momentum=0.9)
    kind = getattr(torch.optim, name)
    settings = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    parameters = model.parameters()
    if name == "Muon":  # matrices only
        parameters = [p for p in model.parameters() if p.dim() == 2]
    return kind(parameters, lr=0.01, **settings)


def train(model, optimizer, batches):
    for inputs, targets in batches:

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        closure()
        optimizer.step(closure)
    optimizer.zero_grad(set_to_none=True)


def prepared(name):
    model = mlp()
    batches = batches_for((6,), 4)
    optimizer = make(name, model)
    train(model, optimizer, batches)
    return model, optimizer, batches


def moments(optimizer, parameter):
    state = optimizer.state.get(parameter, {})
    return {k: v.clone() for k, v in state.items() if torch.is_tensor(v) and v.shape == parameter.shape}


@pytest.mark.parametrize("name", [*OPTIMIZERS, "SAM"])
@pytest.mark.parametrize("policy", ["keep", "reset", "scale"])
def test_every_optimizer(name, policy):
    model, optimizer, batches = prepared(name)
    before = {p: (p.clone(), moments(optimizer, p)) for p in model.parameters()}
    weights = snapshot(model)
    arguments = {"optimizer": optimizer, "optimizer_state": policy}
    if policy == "scale" and name in OTHER_SHAPES:
        with pytest.raises(ws.InputError, match="another shape"):
            ws.dash_(model, batches, cross_entropy, **arguments)
        assert_same(weights, snapshot(model))
        return
    report = ws.dash_(model, batches, cross_entropy, **arguments)
    words = {"keep": "kept", "reset": "reset", "scale": "scaled"}
    assert f"optimizer state {words[policy]}" in str(report)
    if policy == "reset":
        assert not optimizer.state
    for parameter, (old, old_moments) in before.items():
        factor = torch.where(old == 0, 1.0, parameter.detach() / old)
        for key, moment in moments(optimizer, parameter).items():
            power = {"keep": 0, "scale": 2 if key in ("exp_avg_sq", "square_avg", "sum", "acc_delta") else 1}[policy]
            torch.testing.assert_close(moment, old_moments[key] * factor**power, rtol=1e-4, atol=1e-7)
    train(model, optimizer, batches)  # and the optimizer goes on


@pytest.mark.parametrize("policy", ["keep", "reset", "scale"])
def test_a_schedule_goes_on(policy):
    model, optimizer, batches = prepared("SGD")
    schedule = StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    schedule.step()
    report = ws.dash_(model, batches, cross_entropy, optimizer=optimizer, optimizer_state=policy)
    assert (optimizer.param_groups[0]["lr"], schedule.last_epoch) == (pytest.approx(0.005), 1)
    assert "learning-rate schedule not touched" in str(report)


@pytest.mark.parametrize("policy", ["reset", "scale"])
def test_the_optimizer_of_another_network_is_refused(policy):
    model, _, batches = prepared("SGD")
    _, other, _ = prepared("SGD")
    before, moments_before = snapshot(model), len(other.state)
    with pytest.raises(ws.InputError, match="optimizer holds no parameter that is scaled"):
        ws.dash_(model, batches, cross_entropy, optimizer=other, optimizer_state=policy)
    assert_same(before, snapshot(model))
    assert len(other.state) == moments_before > 0


def test_moments_that_are_not_there_yet_are_not_said_to_be_scaled():
    model, batches = mlp(), batches_for((6,), 2)
    fresh = torch.optim.Adam(model.parameters())
    report = ws.dash_(model, batches, cross_entropy, optimizer=fresh, optimizer_state="scale")
    assert "optimizer state empty, so nothing to scale" in str(report)


@pytest.mark.parametrize("way", ["dash_", "dash_from_"])
def test_what_the_optimizer_does_not_hold_is_left_alone(way):
    model, batches = mlp(), batches_for((6,), 4)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    head = list(model.children())[-1]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    if way == "dash_":
        report = ws.dash_(model, batches, cross_entropy, optimizer=optimizer)
    else:
        ema = ws.GradientEMA(model)
        for x, y in batches:
            model.zero_grad()
            cross_entropy(model(x), y).backward()
            ema.update()
        report = ws.dash_from_(model, ema, optimizer=optimizer)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    inside = {name for name, parameter in model.named_parameters() if parameter in set(head.parameters())}
    assert changed == {layer.name for layer in report.layers} == inside
    assert {entry.reason for entry in report.left_alone if entry.name == "0.weight"} == {"not in the optimizer"}
    assert "optimizer state empty" in str(report)


def test_the_moments_of_an_optimizer_inside_another_one_are_scaled():
    class Outer(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})
            self.base_optimizer = torch.optim.SGD(self.param_groups, lr=0.1, momentum=0.9)

    model, batches = mlp(), batches_for((6,), 4)
    outer = Outer(model.parameters())
    train(model, outer.base_optimizer, batches)
    before, momentum = model[0].weight.detach().clone(), moments(outer.base_optimizer, model[0].weight)
    ws.dash_(model, batches, cross_entropy, optimizer=outer, optimizer_state="scale")
    (scaled,) = moments(outer.base_optimizer, model[0].weight).values()
    torch.testing.assert_close(scaled, momentum["momentum_buffer"] * model[0].weight.detach() / before)


def test_moments_kept_as_integers_are_refused():
    model, optimizer, batches = prepared("Adam")
    for state in optimizer.state.values():
        state["exp_avg"] = state["exp_avg"].to(torch.int8)  # as 8-bit optimizers do
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=r"Adam keeps exp_avg of 0.weight in another shape or as integers"):
        ws.dash_(model, batches, cross_entropy, optimizer=optimizer, optimizer_state="scale")
    assert_same(before, snapshot(model))


def test_recalibrated_statistics_are_those_of_the_batches():
    model, batches = cnn(), batches_for((3, 8, 8), 3)
    kept = ws.dash_(model, batches, cross_entropy, apply=True)
    assert "batch-norm statistics kept" in str(kept)
    momentum = model[1].momentum
    report = ws.dash_(model, batches, cross_entropy, batch_norm="recalibrate")
    assert "statistics of 2 batch-norm layers measured anew" in str(report)
    means = torch.stack([model[0](inputs).mean((0, 2, 3)) for inputs, _ in batches]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means, rtol=1e-4, atol=1e-6)
    assert model[1].momentum == momentum
    assert model[1].training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer_state": "rest"}, "did you mean 'reset'"),
        ({"optimizer_state": "reset"}, "needs optimizer="),
        ({"batch_norm": "recalibrated"}, "did you mean 'recalibrate'"),
    ],
)
def test_wrong_choices_change_nothing(arguments, message):
    model, batches = mlp(), batches_for((6,), 2)
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.dash_(model, batches, cross_entropy, **arguments)
    assert_same(before, snapshot(model))


def test_recalibration_refuses_what_can_be_read_once():
    model, batches = cnn(), batches_for((3, 8, 8), 2)
    before = snapshot(model)
    with pytest.raises(ws.InputError, match="twice"):
        ws.dash_(model, iter(batches), cross_entropy, batch_norm="recalibrate")
    assert_same(before, snapshot(model))


def test_recalibration_weighs_examples_alike_and_leaves_out_one_alone():
    """50 examples by 7: the last batch is one example, which has no variance."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(50, 6), torch.randint(0, 4, (50,)))
    model = mlp()
    ws.dash_(model, DataLoader(data, 7), cross_entropy, alpha=0.1, batch_norm="recalibrate")
    mean = model[0](data.tensors[0][:49]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean, rtol=1e-4, atol=1e-6)

    model = mlp()
    batches = [batches_for((6,), 1, size=size, seed=size)[0] for size in (12, 3)]
    ws.dash_(model, batches, cross_entropy, batch_norm="recalibrate")
    mean = model[0](torch.cat([inputs for inputs, _ in batches])).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean, rtol=1e-4, atol=1e-6)


def test_recalibration_computes_no_more_examples_at_a_time_than_fit():
    model, batches, seen = cnn(), batches_for((3, 8, 8), 2, size=21), []

    def loss(network, batch):
        seen.append(len(batch[0]))
        return cross_entropy(network(batch[0]), batch[1])

    ws.dash_(model, batches, forward_loss=loss, micro_batch_size=8, batch_norm="recalibrate")
    assert max(seen) <= 8
    assert seen[-6:] == [7] * 6


class Once(IterableDataset):
    """A stream that cannot be read twice."""

    def __init__(self, batches):
        self.examples = iter([(x, y) for inputs, targets in batches for x, y in zip(inputs, targets, strict=True)])

    def __iter__(self):
        return self.examples


def failing_on(call):
    """A loss that fails on one of its calls, as where memory runs out."""
    calls = []

    def loss(network, batch):
        calls.append(batch)
        if len(calls) == call:
            raise MemoryError("no more")
        return cross_entropy(network(batch[0]), batch[1])

    return loss


@pytest.mark.parametrize(
    ("batches", "loss", "error", "message"),
    [
        (lambda b: DataLoader(Once(b), 8), failing_on(0), ws.InputError, "reads batches twice, and the second time"),
        (lambda b: b, failing_on(6), MemoryError, "no more"),
        (lambda b: [(x[:1], y[:1]) for x, y in b], failing_on(0), ValueError, "more than 1 value per channel"),
    ],
    ids=["read once", "in the second reading", "nothing but single examples"],
)
def test_recalibration_that_fails_leaves_everything_bit_for_bit_as_it_was(batches, loss, error, message):
    given = batches_for((6,), 4)
    model = trained(mlp(), given)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(model, optimizer, given)
    momentum = moments(optimizer, model[0].weight)["momentum_buffer"]
    before = snapshot(model)
    arguments = {"optimizer": optimizer, "optimizer_state": "scale"}
    with pytest.raises(error, match=message):
        ws.dash_(model, batches(given), forward_loss=loss, batch_norm="recalibrate", **arguments)
    assert_same(before, snapshot(model))
    assert model[1].momentum == 0.1
    assert torch.equal(moments(optimizer, model[0].weight)["momentum_buffer"], momentum)


def test_a_network_without_batch_norm_has_nothing_to_measure():
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4))
    report = ws.dash_(model, batches_for((6,), 2), cross_entropy, batch_norm="recalibrate")
    assert "statistics of 0 batch-norm layers measured anew" in str(report)
