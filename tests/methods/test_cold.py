import pytest
import torch
from torch import nn

import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained, updated
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import Recipe


class Counting(nn.Module):
    """A network with a buffer that no checkpoint keeps."""

    def __init__(self, start):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("calls", torch.tensor(float(start)), persistent=False)


def draw(seed, make=cnn):
    model = make()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def test_the_network_equals_the_fresh_one_bit_for_bit():
    model, fresh = trained(cnn(), batches_for((3, 8, 8), 3)), draw(1)
    assert not torch.equal(model[1].running_mean, fresh[1].running_mean)
    ws.cold_(model, fresh)
    assert_same(snapshot(fresh), snapshot(model))


def test_buffers_that_are_not_saved_start_anew_too():
    model, fresh = Counting(5), Counting(0)
    ws.cold_(model, fresh)
    assert model.calls == 0


def test_it_stays_the_same_object_so_that_optimizers_go_on_with_it():
    model = trained(cnn(), batches_for((3, 8, 8), 3)).to(memory_format=torch.channels_last)
    before = {name: (id(p), p.data_ptr(), p.stride()) for name, p in model.named_parameters()}
    ws.cold_(model, draw(1))
    assert before == {name: (id(p), p.data_ptr(), p.stride()) for name, p in model.named_parameters()}


def test_training_one_of_the_two_leaves_the_other_alone():
    batches = batches_for((3, 8, 8), 3)
    model, fresh = cnn(), draw(1)
    ws.cold_(model, fresh)
    before = snapshot(fresh)
    trained(model, batches)
    assert_same(before, snapshot(fresh))
    before = snapshot(model)
    trained(fresh, batches)
    assert_same(before, snapshot(model))


def test_each_stage_is_a_draw_of_its_own():
    """As the engine does it; the authors' VGG re-seeds and repeats one draw."""
    draws = iter(range(10))
    stage = ws.Stage(2, 10, 5, list, None, lambda: draw(next(draws)), {}, torch.Generator())
    model, starts = cnn(), []
    for _ in range(3):
        ws.Cold().on_new_data(model, stage)
        starts.append(model[0].weight.clone())
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


@pytest.mark.parametrize("name", ["sgd", "sam", "adamw"])
def test_the_optimizer_starts_anew_and_keeps_its_settings(name):
    """The run goes on as one that started with the fresh network and a fresh optimizer."""
    batches = batches_for((6,), 4)
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    model, fresh = mlp(), draw(1, mlp)
    optimizer = make_optimizer(Recipe(optimizer=name, **settings), model)
    updated(model, optimizer, batches)
    ws.cold_(model, fresh, optimizer=optimizer)
    updated(model, optimizer, batches)
    updated(fresh, make_optimizer(Recipe(optimizer=name, **settings), fresh), batches)
    assert_same(snapshot(fresh), snapshot(model))


@pytest.mark.parametrize(
    ("fresh", "message"),
    [
        (lambda model: mlp(width=9), "another kind of network.*0.bias"),
        (lambda model: mlp(norm=False), "another kind of network"),
        (lambda model: model, "pass a copy"),
    ],
    ids=["other sizes", "other layers", "itself"],
)
def test_what_is_no_fresh_network_is_refused_before_anything_changes(fresh, message):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    updated(model, optimizer, batches_for((6,), 2))
    before, momentum = snapshot(model), len(optimizer.state)
    with pytest.raises(ws.InputError, match=message):
        ws.cold_(model, fresh(model), optimizer=optimizer)
    assert_same(before, snapshot(model))
    assert len(optimizer.state) == momentum > 0


@pytest.mark.parametrize(
    "act",
    [
        lambda model: ws.cold_(model, torch.nn.Linear(4, 3)),
        lambda model: ws.head_reset_(torch.nn.Sequential(model), "0"),
        ws.parseval_,
        ws.fire_,
        ws.shrink_perturb_,
    ],
    ids=["cold", "head-reset", "parseval", "fire", "shrink-perturb"],
)
def test_a_network_without_values_is_refused(act):
    with pytest.raises(ws.InputError, match="weight is on the meta device and has no values: load the weights first"):
        act(torch.nn.Linear(4, 3, device="meta"))
