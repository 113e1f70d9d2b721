import math

import pytest
import torch
from torch import nn

import warmstart as ws
from warmstart import Stage
from warmstart.methods.lifecycle import Updates
from warmstart.methods.rewarm import Rewarm
from warmstart.training.optimizers import make_optimizer, step
from warmstart.training.recipe import Recipe


def stage(number, optimizer, state=None, updates=None):
    return Stage(
        number=number,
        seen=10,
        new=5,
        batches=lambda size: [],
        forward_loss=lambda model, batch: model(batch).sum(),
        fresh=lambda: nn.Linear(1, 1),
        initial={},
        generator=torch.Generator(),
        optimizer=optimizer,
        updates=updates,
        state={} if state is None else state,
    )


def rates(method, number, count, passes=1, begin=0, **known):
    """The rates of the updates of a stage, with the loop's own falling from 1 by a tenth an update."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    here = stage(number, optimizer, **known)
    if number > 1 and begin == 0:
        method.on_new_data(model, here)
    updates, seen = Updates(method, here, done=begin), []
    for update in range(begin, begin + count):
        optimizer.param_groups[0]["lr"] = 1 - update / 10
        for _ in range(passes):
            updates.after_backward(model)
        seen.append(optimizer.param_groups[0]["lr"])
        updates.after_step(model)
        assert optimizer.param_groups[0]["lr"] == 1 - update / 10  # the loop's own is put back
    return seen


def expected(factor, length, count, begin=0):
    shares = [min(1.0, update / length) for update in range(begin, begin + count)]
    factors = [1 + (factor - 1) * (1 + math.cos(math.pi * share)) / 2 for share in shares]
    return pytest.approx(
        [(1 - update / 10) * f for update, f in zip(range(begin, begin + count), factors, strict=True)]
    )


def test_the_rate_is_raised_at_an_arrival_and_falls_back_over_the_stage():
    assert rates(Rewarm(5.0), 2, 8, updates=8) == expected(5, 8, 8)
    assert rates(Rewarm(5.0), 2, 8, updates=8)[0] == 5.0
    assert rates(Rewarm(5.0, updates=4), 3, 8, updates=8) == expected(5, 4, 8)


def test_the_first_stage_is_trained_as_ever():
    assert rates(Rewarm(5.0), 1, 4, updates=4) == expected(1, 4, 4)


def test_sams_two_passes_raise_it_once():
    assert rates(Rewarm(5.0), 2, 4, passes=2, updates=4) == expected(5, 4, 4)


def test_where_a_rule_ends_a_stage_the_last_ones_updates_count():
    state = {}
    rates(Rewarm(5.0), 1, 3, state=state)
    assert rates(Rewarm(5.0), 2, 6, state=state) == expected(5, 3, 6)
    assert rates(Rewarm(5.0), 3, 2, state=state) == expected(5, 6, 2)
    assert rates(Rewarm(5.0), 3, 4, begin=2, state=state) == expected(5, 6, 4, begin=2)  # gone on with


def test_the_report_says_over_how_many_updates_or_that_nothing_is_known():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    told = Rewarm(5.0).on_new_data(nn.Linear(1, 1), stage(2, optimizer, updates=1200))
    assert told.notes == ("learning rate x 5, falling back over 1,200 updates",)
    untold = Rewarm().on_new_data(nn.Linear(1, 1), stage(2, optimizer))
    assert "write rewarm[updates=N]" in untold.warnings[0]
    assert rates(Rewarm(5.0), 2, 4) == expected(1, 4, 4)


def test_it_is_a_name_on_the_command_line():
    assert ws.parse_method("rewarm[factor=3]") == Rewarm(3.0)
    assert str(Rewarm(3)) == "rewarm[factor=3.0]"


@pytest.mark.parametrize(("lr", "warned"), [(0.1, True), (0.01, False)])
def test_a_raised_rate_at_which_training_diverges_is_warned_of(lr, warned):
    model = nn.Linear(2, 2)
    report = Rewarm(updates=5).on_new_data(model, stage(2, torch.optim.SGD(model.parameters(), lr=lr)))
    told = "the raised rate is 1.1, at which training usually diverges; lower the factor, or the rate"
    assert list(report.warnings) == [told] * warned


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 1 / 0.3**2), ("adamw", 1 / 0.3), ("muon", 1 / 0.3)])
def test_behind_a_norm_layer_the_factor_is_the_partner_of_shrinking_by_0_3(optimizer, factor):
    """One update turns a weight's direction alike, shrunk at the rate or as it was at the raised one."""
    recipe = Recipe(optimizer=optimizer, lr=1e-3, momentum=0.0)
    inputs, targets = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3

    def turned(shrink, raised):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, eps=1e-12), nn.Linear(5, 3)).double()
        model[0].weight.data.mul_(shrink)
        model[1:].requires_grad_(False)
        before = nn.functional.normalize(model[0].weight.detach().clone())
        made = make_optimizer(recipe.model_copy(update={"lr": recipe.lr * raised}), model)
        step(made, lambda: nn.functional.cross_entropy(model(inputs.double()), targets).backward())
        return nn.functional.normalize(model[0].weight.detach()) - before

    expected = turned(1.0, factor)
    torch.testing.assert_close(turned(0.3, 1.0), expected, rtol=0, atol=0.03 * expected.abs().max().item())
    assert Rewarm().factor == pytest.approx(1 / 0.3**2, abs=0.2)
