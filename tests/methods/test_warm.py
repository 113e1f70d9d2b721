import pytest
import torch
from torch import nn

import warmstart as ws
from networks import assert_same, batches_for, mlp, snapshot, trained, updated
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import Recipe

SETTINGS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


def prepared(optimizer):
    model, batches = mlp(), batches_for((6,), 4)
    optimizer = make_optimizer(Recipe(optimizer=optimizer, **SETTINGS), model)
    updated(model, optimizer, batches)
    return model, optimizer, batches


def twin_of(model):
    twin = mlp()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("name", ["sgd", "sam", "adamw"])
def test_warm_goes_on_as_if_it_had_not_been_called(name):
    model, optimizer, batches = prepared(name)
    other, its_optimizer, _ = prepared(name)
    ws.warm_(model)
    updated(model, optimizer, batches)
    updated(other, its_optimizer, batches)
    assert_same(snapshot(other), snapshot(model))


@pytest.mark.parametrize("name", ["sgd", "sam", "adamw"])
def test_warm_reset_goes_on_as_with_a_new_optimizer(name):
    model, optimizer, batches = prepared(name)
    twin, warm = twin_of(model), twin_of(model)
    ws.warm_reset_(model, optimizer)
    updated(model, optimizer, batches)
    updated(twin, make_optimizer(Recipe(optimizer=name, **SETTINGS), twin), batches)
    assert_same(snapshot(twin), snapshot(model))
    _, with_momentum, _ = prepared(name)
    assert with_momentum.state, "else this would test nothing"
    assert not torch.equal(model[0].weight, warm[0].weight)


def test_warm_reset_keeps_a_learning_rate_that_a_schedule_has_set():
    model, optimizer, _ = prepared("sgd")
    optimizer.param_groups[0]["lr"] = 0.123
    ws.warm_reset_(model, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.123


def test_the_momentum_of_an_optimizer_inside_another_one_is_reset():
    """SAM as most repositories have it keeps its momentum in a base optimizer of its own."""

    class Outer(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})
            self.base_optimizer = torch.optim.SGD(self.param_groups, lr=0.1, momentum=0.9)

    model = nn.Linear(6, 4)
    outer = Outer(model.parameters())
    model(torch.ones(1, 6)).sum().backward()
    outer.base_optimizer.step()
    assert outer.base_optimizer.state
    ws.warm_reset_(model, outer)
    assert not outer.base_optimizer.state


def test_without_an_optimizer_that_goes_on_there_is_nothing_to_reset():
    model = trained(mlp(), batches_for((6,), 2))
    before = snapshot(model)
    stage = ws.Stage(2, 10, 5, list, None, mlp, {}, torch.Generator(), optimizer=None)
    report = ws.WarmReset().on_new_data(model, stage)
    assert_same(before, snapshot(model))
    assert "nothing to reset" in str(report)
