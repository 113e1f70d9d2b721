"""What holds in each loop: a bare one, Accelerate, Lightning and the Hugging Face Trainer."""

import logging
import math

import pytest
import torch
from arrivals import EXAMPLES, KINDS, assert_equal, last_months, months, weights
from loops import BATCH, LOOPS, LR, InterruptedRunError, Lightning, optimizer_and_schedule
from torch.utils.data import DataLoader

import warmstart as ws
from warmstart import integrations

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

DASH = ws.Dash(batch_size=5)


@pytest.fixture(params=LOOPS.values(), ids=LOOPS.keys())
def loop(request):
    return request.param


def dashed(kind):
    """Last month's network after ws.dash_ on the same batches, called directly."""
    network, data = last_months(kind), months(kind)
    batches = [data.batch(max(0, stop - 5), stop) for stop in (1, 6, 11, EXAMPLES)]
    return network, ws.dash_(network, batches, micro_batch_size=BATCH)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_dash_then_training(kind, loop, tmp_path):
    network, data = last_months(kind), months(kind)
    warm_start = loop.WarmStart(DASH, DataLoader(data, batch_size=BATCH, shuffle=True))
    rates = loop.train(network, data, tmp_path, warm_start, epochs=1)

    by_hand, report = dashed(kind)
    assert [layer.mean for layer in warm_start.report.layers] == [layer.mean for layer in report.layers]
    loop.train(by_hand, data, tmp_path / "by-hand", epochs=1)
    assert_equal(network, by_hand)
    assert rates[0] == LR
    assert rates[-1] < LR


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_resumes_without_acting_twice(kind, loop, tmp_path, caplog):
    data = months(kind)
    loader = DataLoader(data, batch_size=BATCH)
    undisturbed, first = last_months(kind), loop.WarmStart(DASH, loader)
    loop.train(undisturbed, data, tmp_path / "undisturbed", first)

    network = last_months(kind)
    with pytest.raises(InterruptedRunError):
        loop.train(network, data, tmp_path, loop.WarmStart(DASH, loader), stop_at=6)
    caplog.clear()
    resumed, again = last_months(kind), loop.WarmStart(DASH, loader)
    rates = loop.train(resumed, data, tmp_path, again, resume=True)
    assert "has been applied for this arrival (16 examples), so not again" in caplog.text
    assert_equal(resumed, undisturbed)
    assert again.report == first.report
    assert len(rates) == 4
    assert rates[0] < LR


def test_a_new_arrival_is_met_in_a_resumed_run_too(loop, tmp_path):
    data = months("cnn")
    loader = DataLoader(data, batch_size=BATCH)
    with pytest.raises(InterruptedRunError):
        loop.train(last_months("cnn"), data, tmp_path, loop.WarmStart(DASH, loader), stop_at=6)
    resumed, again = last_months("cnn"), loop.WarmStart(DASH, loader, arrival="2026-07")
    loop.train(resumed, data, tmp_path, again, resume=True)
    assert any(note.startswith("a fit resumed at step 4:") for note in again.report.notes)

    once = last_months("cnn")
    loop.train(once, data, tmp_path / "once", loop.WarmStart(DASH, loader))
    assert not torch.equal(resumed.head.weight, once.head.weight)


def test_the_report_says_what_became_of_everything_else(loop, tmp_path, caplog):
    caplog.set_level(logging.INFO, "warmstart")
    warm_start = loop.WarmStart(DASH, DataLoader(months("cnn"), batch_size=BATCH), new_examples=8)
    loop.train(last_months("cnn"), months("cnn"), tmp_path, warm_start, epochs=1)
    notes = warm_start.report.notes
    assert "a new fit: fresh optimizer state and schedule" in notes
    assert notes.count("batch-norm statistics kept: train before predicting") == 1
    assert any(note.startswith("old data has") for note in notes)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "warmstart"]
    assert "29 neurons scaled by" in said
    assert all(len(line) <= 80 for line in said.splitlines())


@pytest.mark.parametrize("method", ["l2-init[coef=0.1]", "shrink-perturb[variant=dohare,noise_std=0.01]"])
def test_methods_that_act_on_every_update(method, loop, tmp_path):
    """Equal to the same loop by hand, interrupted or not."""
    data, first = months("cnn"), weights(last_months("cnn"))
    loader = DataLoader(data, batch_size=BATCH)

    def warm_start(loop):
        names = first if not isinstance(loop, Lightning) else {f"network.{name}": w for name, w in first.items()}
        return loop.WarmStart(ws.parse_method(method), loader, initial=names)

    by_hand = last_months("cnn")
    LOOPS["bare"].train(by_hand, data, tmp_path, warm_start(LOOPS["bare"]), accumulate=2)
    network = last_months("cnn")
    loop.train(network, data, tmp_path / "whole", warm_start(loop), accumulate=2)
    for name, tensor in weights(network).items():
        torch.testing.assert_close(tensor, weights(by_hand)[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(InterruptedRunError):
        loop.train(last_months("cnn"), data, tmp_path / "again", warm_start(loop), accumulate=2, stop_at=3)
    resumed = last_months("cnn")
    loop.train(resumed, data, tmp_path / "again", warm_start(loop), accumulate=2, resume=True)
    assert_equal(resumed, network)


def test_an_update_is_acted_on_as_the_method_says(tmp_path):
    """The reference of the test above, against plain PyTorch."""
    network, data = last_months("cnn"), months("cnn")
    loader, first = DataLoader(data, batch_size=BATCH), weights(last_months("cnn"))
    warm_start = integrations.WarmStart(ws.L2Init(0.1), loader, initial=first)
    LOOPS["bare"].train(network, data, tmp_path, warm_start, epochs=1)

    plain = last_months("cnn")
    optimizer, schedule = optimizer_and_schedule(plain, 4)
    plain.train()
    for batch in loader:
        penalty = sum(((w - first[name]) ** 2).sum() for name, w in plain.named_parameters())
        optimizer.zero_grad()
        (plain(**batch)["loss"] + 0.1 / 2 * penalty).backward()
        optimizer.step()
        schedule.step()
    for name, tensor in weights(network).items():
        torch.testing.assert_close(tensor, weights(plain)[name], rtol=1e-5, atol=1e-6)


def test_rewarm_falls_back_over_as_many_updates_as_the_arrival_before_had():
    network, data = last_months("cnn"), months("cnn")
    loader, state, raised = DataLoader(data, batch_size=BATCH), None, []
    for arrival in ("june", "july"):
        warm_start = integrations.WarmStart(ws.parse_method("rewarm[factor=5]"), loader, arrival=arrival)
        if state is not None:
            warm_start.load_state_dict(state)
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        warm_start.apply_(network, optimizer)
        for step in range(4):
            warm_start.after_backward(network, step)
            raised.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            warm_start.after_step(network, step)
        state = warm_start.state_dict()
    assert "no stage was trained with rewarm before" not in str(warm_start.report)
    assert raised[:4] == [1.0] * 4  # nobody knows how long the first one will be
    assert raised[4:] == pytest.approx([1 + 4 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)])


def test_accelerates_mixed_precision_does_not_touch_the_gradients():
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    model = accelerator.prepare(last_months("cnn"))
    warm_start = integrations.WarmStart(DASH, DataLoader(months("cnn"), batch_size=BATCH))
    warm_start.apply_(model)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    assert_equal(accelerator.unwrap_model(model), dashed("cnn")[0])
    logits = model(**months("cnn").batch(0, 4))["logits"]
    assert torch.equal(logits, logits.bfloat16().float())  # autocast is back
