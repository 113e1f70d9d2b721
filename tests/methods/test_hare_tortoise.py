"""Hare & Tortoise against a plain loop of updates, and against the authors' loop of epochs."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

import reference_regularisers as reference
import warmstart as ws
from networks import batches_for, cnn, mlp
from warmstart.integrations import WarmStart
from warmstart.network import tensors_of

BATCHES = batches_for((3, 8, 8), 4)


def stage_for(model, optimizer=None, **options):
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return ws.Stage(2, 32, 8, lambda size: BATCHES, None, cnn, first, torch.Generator(), optimizer, **options)


def trained_on(model, method, stage, steps, look=lambda step: None):
    for step in range(steps):
        stage.step = step
        inputs, targets = BATCHES[step % len(BATCHES)]
        stage.optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        method.after_backward(model, stage)
        stage.optimizer.step()
        method.after_step(model, stage)
        look(step)


def copied(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def test_one_number_follows_the_plain_loop():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    method, stage = ws.HareTortoise(momentum=0.75, updates=3), stage_for(model)
    changes = [0.5, -1.0, 2.0, 0.25, 0.25, -3.0, 1.0]
    found = []
    for stage.step, change in enumerate(changes):
        method.after_backward(model, stage)
        with torch.no_grad():
            model.weight += change
        method.after_step(model, stage)
        found.append((stage.state["weight"].item(), model.weight.item()))
    expected = reference.slow_and_fast(changes, 0.75, 3)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("channels_last", [False, True])
def test_parameters_and_buffers_are_averaged_and_given_back_as_copies(channels_last):
    model = cnn()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method, stage = ws.HareTortoise(momentum=0.9, epochs=2), stage_for(model, optimizer, updates_per_epoch=3)
    slow, strides = {}, model[0].weight.stride()

    class Spy(ws.HareTortoise):
        def after_backward(self, model, stage):
            super().after_backward(model, stage)
            slow.update(copied(tensors_of(model)) if not slow else {})

        def after_step(self, model, stage):
            for name, fast in tensors_of(model).items():
                real = fast.is_floating_point()
                slow[name] = 0.9 * slow[name] + (1 - 0.9) * fast.detach() if real else fast.clone()
            fast = copied(tensors_of(model))
            super().after_step(model, stage)
            returned = stage.step + 1 in (3, 9)  # epochs of 3 updates: after the first, and two later
            for name, tensor in tensors_of(model).items():
                torch.testing.assert_close(stage.state[name], slow[name], rtol=1e-5, atol=1e-6)
                assert torch.equal(tensor, stage.state[name] if returned else fast[name]), (stage.step, name)

    moments = []
    trained_on(model, Spy(**vars(method)), stage, 14, lambda step: moments.append(len(optimizer.state)))
    assert model[0].weight.stride() == strides
    assert moments == [6 + 4] * 14, "the optimizer's state goes on"
    places = {tensor.data_ptr() for tensor in tensors_of(model).values()}
    assert not places & {tensor.data_ptr() for tensor in stage.state.values()}


def test_after_a_return_the_two_networks_part_again():
    """In the authors' code `fast.data = slow.data` makes them share memory, until an update gives slow its own."""
    model = cnn()
    stage = stage_for(model, torch.optim.SGD(model.parameters(), lr=0.1))
    trained_on(model, ws.HareTortoise(momentum=0.9, updates=2), stage, 2)
    assert torch.equal(model[0].weight, stage.state["0.weight"])
    slow = stage.state["0.weight"].clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(stage.state["0.weight"], slow)


@pytest.mark.parametrize(("every", "epochs"), [(1, 5), (2, 7), (3, 9), (10, 30)])
def test_it_returns_after_the_epochs_after_which_the_authors_code_does(every, epochs):
    """Their loop counts epochs of a stage from 0 and returns at its end where `epoch % reset_every == 0`."""
    model, per_epoch = nn.Linear(1, 1), 4
    stage = stage_for(model, torch.optim.SGD(model.parameters(), lr=0.0), updates_per_epoch=per_epoch)
    method, found = ws.HareTortoise(momentum=0.9, epochs=every), []
    for epoch in range(epochs):
        for batch in range(per_epoch):
            stage.step = epoch * per_epoch + batch
            method.after_backward(model, stage)
            with torch.no_grad():
                model.weight.add_(1.0)
            method.after_step(model, stage)
            if torch.equal(model.weight, stage.state["weight"]):
                found.append((epoch, batch))
    assert found == [(epoch, per_epoch - 1) for epoch in range(epochs) if epoch % every == 0]
    note = method.on_new_data(model, stage).notes[-1]
    assert f"after the first epoch and every {every} epoch" in note


def test_the_slow_network_is_measured_and_the_fast_one_if_asked_for():
    model = cnn()
    stage = stage_for(model, torch.optim.SGD(model.parameters(), lr=0.1))
    method = ws.HareTortoise(momentum=0.9, updates=50)
    assert method.measured(model, stage.state) is model, "nothing is kept yet"
    trained_on(model, method, stage, 5)
    served = method.measured(model, stage.state)
    for name, tensor in tensors_of(served).items():
        assert torch.equal(tensor, stage.state[name])
    assert not torch.equal(served[0].weight, model[0].weight)
    fast, slow = copied(tensors_of(model)), copied(stage.state)
    for tensor in served.parameters():
        tensor.detach().zero_()
    assert all(torch.equal(tensor, fast[name]) for name, tensor in tensors_of(model).items())
    assert all(torch.equal(tensor, slow[name]) for name, tensor in stage.state.items())
    assert ws.HareTortoise(measure="fast").measured(model, stage.state) is model


def test_half_precision_is_averaged_in_fp32_where_a_thousandth_still_counts():
    model = nn.Linear(4, 4).to(torch.bfloat16)
    method, stage = ws.HareTortoise(updates=1000), stage_for(model)
    method.after_backward(model, stage)
    before = stage.state["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    for stage.step in range(100):
        method.after_step(model, stage)
    moved = stage.state["weight"] - before
    torch.testing.assert_close(moved, torch.full((4, 4), 1 - 0.999**100), rtol=0, atol=5e-3)


def test_the_slow_network_goes_on_over_stages():
    model = cnn()
    stage = stage_for(model, torch.optim.SGD(model.parameters(), lr=0.1))
    method = ws.HareTortoise(updates=5)
    trained_on(model, method, stage, 3)
    slow = copied(stage.state)
    report = method.on_new_data(model, stage)
    assert all(torch.equal(tensor, slow[name]) for name, tensor in stage.state.items())
    assert any("every 5 updates" in note for note in report.notes)


def test_where_the_epoch_is_not_known_it_says_so_and_never_returns():
    model = cnn()
    report = ws.HareTortoise().on_new_data(model, stage_for(model))
    (warning,) = report.warnings
    assert "write hare-tortoise[updates=N]" in warning


def test_fsdp2_is_refused_before_anything_changes():
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(mlp(), mesh=dist.init_device_mesh("cpu", (1,)))
        before = [p.to_local().detach().clone() for p in model.parameters()]
        with pytest.raises(ws.InputError, match=r"hare-tortoise\[updates=2\] keeps state.*use DDP"):
            WarmStart(ws.HareTortoise(updates=2), batches_for((6,), 2), cross_entropy).apply_(model)
        assert all(torch.equal(p.to_local(), b) for p, b in zip(model.parameters(), before, strict=True))
    finally:
        dist.destroy_process_group()
