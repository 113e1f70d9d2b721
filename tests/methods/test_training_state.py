"""What becomes of optimizer, schedule and batch-norm statistics, and that the report says so."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, StepLR

import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot

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


@pytest.mark.parametrize(
    "make_schedule",
    [
        lambda o: StepLR(o, 2, gamma=0.1),
        lambda o: CosineAnnealingLR(o, 10),
        lambda o: LinearLR(o, 0.1, total_iters=5),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    ],
)
def test_a_restarted_schedule_repeats_itself(make_schedule):
    model, optimizer, batches = prepared("SGD")
    schedule = make_schedule(optimizer)

    def rates():
        seen = []
        for _ in range(6):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return seen

    first = rates()
    report = ws.dash_(model, batches, cross_entropy, scheduler=schedule, schedule="restart")
    assert rates() == pytest.approx(first)
    assert "learning-rate schedule restarted" in str(report)


def test_a_kept_schedule_goes_on():
    model, optimizer, batches = prepared("SGD")
    schedule = StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    schedule.step()
    report = ws.dash_(model, batches, cross_entropy, scheduler=schedule)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    assert "learning-rate schedule kept" in str(report)


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
        ({"schedule": "restart"}, "needs scheduler="),
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
