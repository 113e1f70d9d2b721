"""What is no network, optimizer, number or function is refused in one line, and nothing changes."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot
from warmstart.network import eval_mode, saved_buffers

BATCHES = batches_for((6,), 3)
INPUTS, TARGETS = BATCHES[0]


def dash(model, batches=BATCHES, loss_fn=cross_entropy, **arguments):
    return ws.dash_(model, batches, loss_fn, **arguments)


FUNCTIONS = {
    "dash_": dash,
    "dash_from_": lambda model: ws.dash_from_(model, ws.GradientEMA(mlp())),
    "GradientEMA": ws.GradientEMA,
    "validate": ws.validate,
    "shrink_perturb_": ws.shrink_perturb_,
    "fire_": ws.fire_,
    "cold_": lambda model: ws.cold_(model, mlp()),
    "cold_, fresh": lambda model: ws.cold_(mlp(), model),
    "warm_": ws.warm_,
    "warm_reset_": lambda model: ws.warm_reset_(model, torch.optim.SGD(mlp().parameters())),
    "l2_init_": lambda model: ws.l2_init_(model, mlp().state_dict()),
}


@pytest.mark.parametrize("call", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_is_no_network_is_refused(call):
    if call is FUNCTIONS["dash_from_"]:
        ema = ws.GradientEMA(mlp())
        ema.updates = 1
        call = lambda model: ws.dash_from_(model, ema)  # noqa: E731
    for wrong, message in (("resnet18", "a str, not a network"), (mlp, "a function, not a network: call it")):
        with pytest.raises(ws.InputError, match=message):
            call(wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: dash(m, alpha="0.3"), "alpha is '0.3', a str; it must be a number"),
        (lambda m: dash(m, alpha=True), "alpha is True"),
        (lambda m: dash(m, lambda_="0.3"), "lambda_ is '0.3'"),
        (lambda m: dash(m, tolerance=None), "tolerance is None"),
        (lambda m: dash(m, micro_batch_size="8"), "micro_batch_size is '8'; it must be a whole number"),
        (lambda m: dash(m, micro_batch_size=2.5), "micro_batch_size is 2.5; it must be a whole number"),
        (lambda m: dash(m, new_examples=1.5), "new_examples is 1.5; it must be a whole number"),
        (lambda m: dash(m, new_examples=-5), "new_examples is -5; it must be at least 0"),
        (lambda m: dash(m, new_examples=500), "new_examples is 500, but the batches hold 24"),
        (lambda m: dash(m, loss_fn="ce"), "loss_fn is 'ce': pass a function"),
        (lambda m: dash(m, loss_fn=None, forward_loss="ce"), "forward_loss is 'ce': pass a function"),
        (lambda m: dash(m, filter_fn="conv"), "filter_fn is 'conv': pass a function"),
        (lambda m: dash(m, (INPUTS, TARGETS)), r"for a single batch pass \[\(input, target\)\]"),
        (lambda m: dash(m, 5), "batches is a int: pass a DataLoader"),
        (lambda m: dash(m, optimizer="sgd"), "optimizer is a str: pass the torch.optim.Optimizer"),
        (lambda m: dash(m, optimizer="sgd", optimizer_state="reset"), "optimizer is a str"),
        (lambda m: ws.dash_from_(m, BATCHES), "ema is a list: pass a GradientEMA"),
        (lambda m: ws.cold_(m, mlp(), optimizer="sgd"), "optimizer is a str"),
        (lambda m: ws.warm_reset_(m, None), "optimizer is a NoneType"),
        (lambda m: ws.shrink_perturb_(m, shrink="0.3"), "shrink is '0.3'"),
        (lambda m: ws.shrink_perturb_(m, noise_std="0"), "noise_std is '0'"),
        (lambda m: ws.shrink_perturb_(m, variant=1), "variant is 1, a int; it must be a name"),
        (lambda m: ws.shrink_perturb_(m, variant="hare-tortoise", other=mlp), "pass other=first_state_dict"),
        (lambda m: ws.l2_init_(m, mlp()), "initial is a Sequential: pass the first weights by name"),
        (lambda m: ws.l2_init_(m, mlp().state_dict(), coef="1"), "coef is '1'"),
        (lambda m: ws.oldest_first(BATCHES), "a DataLoader in order, not a list"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_changes(call, message):
    model = mlp()
    cross_entropy(model(INPUTS), TARGETS).backward()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        call(model)
    assert_same(before, snapshot(model))


def test_training_flags_come_back_whatever_happens():
    model = cnn()
    model[1].eval()  # a frozen batch norm inside a training network
    flags = [layer.training for layer in model.modules()]
    with contextlib.suppress(OSError), eval_mode(model):
        assert not any(layer.training for layer in model.modules())
        raise OSError("gone")
    assert [layer.training for layer in model.modules()] == flags


def test_buffers_come_back_where_their_tensor_or_their_values_changed():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    before, tensor = snapshot(model), model[1].running_mean
    put_back = saved_buffers(model)
    model[0].running_mean.add_(1)
    model[1].running_mean = torch.ones(3)
    put_back()
    assert_same(before, snapshot(model))
    assert model[1].running_mean is tensor
