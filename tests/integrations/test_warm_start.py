"""WarmStart without any framework: what it reads, when it acts, what it remembers, what it refuses."""

import copy
import json
import logging
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained
from warmstart.integrations import WarmStart
from warmstart.integrations.report_texts import totals


def pairs(count, seed=1):
    return TensorDataset(*batches_for((6,), 1, size=count, seed=seed)[0])


class Counting(Dataset):
    """Remembers which examples were read."""

    def __init__(self, examples):
        self.examples, self.read = examples, set()

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        self.read.add(index)
        return self.examples[index]


class Streamed(IterableDataset):
    def __init__(self, examples):
        self.examples = examples

    def __iter__(self):
        return iter(self.examples)


@pytest.fixture
def model():
    return trained(mlp(), batches_for((6,), 4))


def test_batches_are_of_1000_examples_cut_from_the_newest(model):
    data = Counting(pairs(2500))
    warm_start = WarmStart(ws.Dash(), DataLoader(data, batch_size=64, shuffle=True), cross_entropy)
    by_hand = copy.deepcopy(model)
    warm_start.apply_(model)
    inputs, targets = data.examples.tensors
    batches = [(inputs[a:b], targets[a:b]) for a, b in ((0, 500), (500, 1500), (1500, 2500))]
    ws.dash_(by_hand, batches, cross_entropy)  # without micro-batches
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_only_the_tail_is_read(model):
    data = Counting(pairs(2500))
    WarmStart(ws.Dash(alpha=0.9, batch_size=10), DataLoader(data, batch_size=64), cross_entropy).apply_(model)
    assert data.read == set(range(2440, 2500))


def test_workers_load_the_same(model):
    loader = DataLoader(pairs(50), batch_size=8, num_workers=1)
    by_hand = copy.deepcopy(model)
    WarmStart(ws.Dash(batch_size=20), loader, cross_entropy).apply_(model)
    WarmStart(ws.Dash(batch_size=20), DataLoader(pairs(50), batch_size=8), cross_entropy).apply_(by_hand)
    assert_same(snapshot(model), snapshot(by_hand))


def test_ready_batches_stay_as_they_are(model):
    batches, by_hand = batches_for((6,), 5), copy.deepcopy(model)
    WarmStart(ws.Dash(), batches, cross_entropy).apply_(model)
    ws.dash_(by_hand, batches, cross_entropy)
    assert_same(snapshot(model), snapshot(by_hand))


def test_a_stream_is_read_once_and_must_be_named(model):
    stream = DataLoader(Streamed(pairs(20)), batch_size=5)
    with pytest.raises(ws.InputError, match="name this arrival"):
        WarmStart(ws.Dash(), stream, cross_entropy).apply_(model)
    by_hand = copy.deepcopy(model)
    WarmStart(ws.Dash(), stream, cross_entropy, arrival="2026-07").apply_(model)
    ws.dash_(by_hand, DataLoader(pairs(20), batch_size=5), cross_entropy)
    assert_same(snapshot(model), snapshot(by_hand))


def test_it_acts_once_for_each_arrival_and_network(model):
    warm_start = WarmStart(ws.Dash(), DataLoader(pairs(20), batch_size=5), cross_entropy)
    assert warm_start.apply_(model) is warm_start.report
    after = snapshot(model)
    assert warm_start.apply_(model) is None
    assert_same(snapshot(model), after)
    assert warm_start.apply_(trained(mlp(), batches_for((6,), 4))) is not None

    more = WarmStart(ws.Dash(), DataLoader(pairs(30), batch_size=5), cross_entropy)
    more.load_state_dict(warm_start.state_dict())
    assert more.apply_(model) is not None


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_network_is_the_one_inside(model, wrap):
    warm_start = WarmStart(ws.Dash(), DataLoader(pairs(20), batch_size=5), cross_entropy)
    assert "0.weight" in {layer.name for layer in warm_start.apply_(wrap(model)).layers}
    after = snapshot(model)
    assert warm_start.apply_(model) is None
    assert warm_start.apply_(wrap(model)) is None
    assert_same(snapshot(model), after)
    assert warm_start.measured(wrap(model)) is model


def test_what_it_remembers_is_plain_and_whole(model):
    warm_start = WarmStart(ws.Dash(), DataLoader(pairs(20), batch_size=5), cross_entropy)
    assert warm_start.state_dict() == {}
    warm_start.apply_(model)
    other = WarmStart(ws.Dash(), DataLoader(pairs(20), batch_size=5), cross_entropy)
    other.load_state_dict(json.loads(json.dumps(warm_start.state_dict())))
    assert other.report == warm_start.report
    assert other.apply_(model) is None
    other.load_state_dict({})
    assert other.report is None


def test_what_needs_a_look_is_a_warning_and_the_rest_can_be_switched_off(model, caplog):
    caplog.set_level(logging.INFO, "warmstart")
    batches = DataLoader(pairs(20), batch_size=5)
    warm_start = WarmStart(ws.Dash(), batches, cross_entropy)
    warm_start.apply_(model)
    warm_start.apply_(model)
    WarmStart(ws.Dash(), batches, cross_entropy).apply_(mlp(norm=False))
    WarmStart(ws.Fire(), batches, cross_entropy).apply_(model)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["INFO", "WARNING", "WARNING", "INFO"]
    for (_, text), part in zip(
        said, ("scaled by", "not again", "no normalisation", "2 parameters changed"), strict=True
    ):
        assert part in text
    caplog.clear()
    caplog.set_level(logging.ERROR, "warmstart")
    warm_start.apply_(model)
    assert not caplog.records


@pytest.mark.parametrize("method", [ws.Dash(), ws.Fire(), ws.Warm()], ids=str)
def test_where_nobody_has_set_up_logging_one_line_says_what_was_done(model, monkeypatch, caplog, capsys, method):
    batches = DataLoader(pairs(40), batch_size=5)
    monkeypatch.setattr(logging.root, "handlers", [])
    WarmStart(method, batches, cross_entropy).apply_(model)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{method} applied: ")
    if method == ws.Dash():
        assert re.search(r"18 neurons scaled by 0\.\d+ on average, scaled 136 of 160 weights", line)
    caplog.set_level(logging.ERROR, "warmstart")
    WarmStart(method, batches, cross_entropy).apply_(model)
    assert capsys.readouterr().err == "", "it can be silenced"


def test_totals_name_scales_only_where_there_are_some(model):
    batches = DataLoader(pairs(20), batch_size=5)
    of = {
        method: totals(WarmStart(ws.parse_method(method), batches, cross_entropy).apply_(model))
        for method in ("dash", "fire")
    }
    assert of["fire"] == {"warmstart/changed": 2, "warmstart/left_alone": 4}
    assert of["dash"].keys() - of["fire"].keys() == {"warmstart/neurons", "warmstart/scale", "warmstart/at_lambda"}
    assert 0.3 <= of["dash"]["warmstart/scale"] <= 1


def test_noise_differs_by_arrival_and_repeats_with_its_seed():
    def noisy(arrival, seed=0):
        model = mlp()
        WarmStart(ws.ShrinkPerturb(), [()], cross_entropy, arrival=arrival, seed=seed).apply_(model)
        return model[0].weight

    assert torch.equal(noisy("june"), noisy("june"))
    assert not torch.equal(noisy("june"), noisy("july"))
    assert not torch.equal(noisy("june"), noisy("june", seed=1))


def test_noise_differs_by_step_and_repeats_with_it():
    warm_start = WarmStart(ws.ShrinkPerturb(variant="dohare", noise_std=0.1), batches_for((6,), 1), cross_entropy)

    def noise(step):
        model = mlp()
        warm_start.apply_(model)
        warm_start.after_step(model, step)
        return model[0].weight

    assert torch.equal(noise(1), noise(1))
    assert not torch.equal(noise(1), noise(2))


def test_a_fresh_network_comes_from_make_model(model):
    fresh = mlp(norm=True)
    warm_start = WarmStart(ws.Cold(), batches_for((6,), 1), cross_entropy, make_model=lambda: copy.deepcopy(fresh))
    warm_start.apply_(model)
    assert torch.equal(model[0].weight, fresh[0].weight)


def test_an_optimizer_that_goes_on_is_seen_by_the_method(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = batches_for((6,), 2)
    assert "nothing to reset" in str(WarmStart(ws.WarmReset(), batches, cross_entropy).apply_(model, optimizer))
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    optimizer.step()
    assert "momentum" not in str(WarmStart(ws.WarmReset(), batches, cross_entropy).apply_(model, optimizer))
    assert not optimizer.state


def test_the_head_is_found_in_a_loader():
    """A method may look at single batches, not only iterate over them."""
    model = trained(cnn(), batches_for((3, 6, 6), 4))
    before = snapshot(model)
    data = TensorDataset(*batches_for((3, 6, 6), 1, size=12)[0])
    report = WarmStart(ws.HeadReset(), DataLoader(data, batch_size=4), cross_entropy).apply_(model)
    assert report.settings == {"head": "8"}
    assert torch.equal(before[0]["0.weight"], model[0].weight)


NO_DATA = "no example"
REFUSED = {
    "a class": (lambda: WarmStart(ws.Dash, []), "pass an instance such as"),
    "a name": (lambda: WarmStart("dash", []), "parse_method"),
    "no batches": (lambda: WarmStart(ws.Dash(), []), NO_DATA),
    "an empty data set": (lambda: WarmStart(ws.Dash(), DataLoader(TensorDataset(torch.zeros(0)))), NO_DATA),
    "a data set": (lambda: WarmStart(ws.Dash(), pairs(8)), "is a data set"),
    "a number": (lambda: WarmStart(ws.Dash(), 8), "is a int"),
    "two losses": (lambda: WarmStart(ws.Dash(), [1], cross_entropy, forward_loss=cross_entropy), "not both"),
    "ready batches of another size": (lambda: WarmStart(ws.Dash(batch_size=8), batches_for((6,), 2)), "are ready"),
    "a part of the data": (
        lambda: WarmStart(ws.Dash(), DataLoader(pairs(8), sampler=SubsetRandomSampler([1, 2]))),
        "Subset",
    ),
    "batches from a part of the data": (
        lambda: WarmStart(
            ws.Dash(), DataLoader(pairs(8), batch_sampler=BatchSampler(SubsetRandomSampler([1, 2]), 1, False))
        ),
        "Subset",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_at_once(case):
    make, message = REFUSED[case]
    with pytest.raises(ws.InputError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


REFUSED_LATER = {
    "no batches": (lambda: WarmStart(ws.Dash()), "needs batches"),
    "no fresh network": (lambda: WarmStart(ws.Cold(), [1]), "make_model"),
    "no first weights": (lambda: WarmStart(ws.ShrinkPerturb(variant="hare-tortoise"), [1]), "initial=first_state_dict"),
    "no number as loss": (
        lambda: WarmStart(ws.Dash(), batches_for((6,), 2), lambda output, target: output),
        "must be one number",
    ),
    "a bad example": (
        lambda: WarmStart(ws.Dash(), [(torch.full((4, 6), torch.nan), torch.zeros(4).long())], cross_entropy),
        "not finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED_LATER)
def test_refused_before_anything_changes(case, model):
    make, message = REFUSED_LATER[case]
    warm_start, before = make(), snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        warm_start.apply_(model)
    assert_same(before, snapshot(model))
    assert warm_start.state_dict() == {}


def test_updates_before_apply_are_refused(model):
    warm_start = WarmStart(ws.L2Init(), [1], initial=snapshot(model)[0])
    with pytest.raises(ws.InputError, match="call apply_"):
        warm_start.after_backward(model, 0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_l2_init_without_first_weights_is_refused_at_the_first_gradient(model):
    warm_start = WarmStart(ws.L2Init(), batches_for((6,), 1))
    warm_start.apply_(model)
    with pytest.raises(ws.InputError, match="initial=first_state_dict"):
        warm_start.after_backward(model, 0)


def test_what_the_optimizer_does_not_hold_is_left_alone(model):
    before, head = snapshot(model), list(model.children())[-1]
    report = WarmStart(ws.Dash(), batches_for((6,), 4), cross_entropy).apply_(
        model, torch.optim.SGD(head.parameters(), lr=0.1)
    )
    assert torch.equal(model[0].weight, before[0]["0.weight"])
    assert "not in the optimizer" in {entry.reason for entry in report.left_alone}


def test_settings_of_numpy_make_a_checkpoint_that_can_be_loaded(model, tmp_path):
    warm_start = WarmStart(ws.Dash(alpha=np.float64(0.2)), batches_for((6,), 4), cross_entropy)
    warm_start.apply_(model)
    torch.save(warm_start.state_dict(), tmp_path / "state.pt")
    again = WarmStart(ws.Dash(alpha=0.2), batches_for((6,), 4), cross_entropy)
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert again.apply_(model) is None


def test_another_method_for_the_same_arrival_is_refused(model):
    batches = batches_for((6,), 4)
    warm_start = WarmStart(ws.Dash(lambda_=0.1), batches, cross_entropy)
    warm_start.apply_(model)
    state, before = warm_start.state_dict(), snapshot(model)
    for method in (ws.Fire(), ws.Dash()):
        other = WarmStart(method, batches, cross_entropy)
        other.load_state_dict(state)
        with pytest.raises(ws.InputError, match=r"was treated with dash\[lambda=0.1\], not .* or name another arrival"):
            other.apply_(model)
    assert_same(before, snapshot(model))
    named = WarmStart(ws.Fire(), batches, cross_entropy, arrival="2026-08")
    named.load_state_dict(state)
    assert named.apply_(model) is not None

    del state["method"]  # as in a checkpoint of an earlier preview
    other = WarmStart(ws.Fire(), batches, cross_entropy)
    other.load_state_dict(state)
    assert other.apply_(model) is None


@pytest.mark.parametrize("state", [{"arrival": "x"}, {"epoch": 3}, None, [1]])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ws.InputError, match="no state of a WarmStart"):
        WarmStart(ws.Dash(), batches_for((6,), 4), cross_entropy).load_state_dict(state)


@pytest.mark.parametrize("method", [ws.Dash(), ws.HareTortoise(), ws.Redo()], ids=str)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_it_can_be_copied_in_the_midst_of_training(model, method, copied):
    batches = batches_for((6,), 4)
    warm_start = WarmStart(method, batches, cross_entropy)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    warm_start.apply_(model, optimizer)
    if method.acts_on_updates:
        cross_entropy(model.train()(batches[0][0]), batches[0][1]).backward()
        warm_start.after_backward(model, 0)
        optimizer.step()
        warm_start.after_step(model, 0)
    twin = copied(warm_start)
    assert twin.report == warm_start.report
    assert twin.state_dict().keys() == warm_start.state_dict().keys()
    assert twin.apply_(model, optimizer, step=1) is None


def test_dash_can_spare_layers_and_weigh_tokens(model):
    batches, by_hand = batches_for((6,), 5), copy.deepcopy(model)

    def weight(batch):
        return float(batch[1].sum() + 1)

    def spared(layer, name):
        return name != "0"

    loader = DataLoader(pairs(20), batch_size=3)
    arguments = {"filter_fn": spared, "weight": weight}
    report = WarmStart(ws.Dash(batch_size=8), loader, cross_entropy, **arguments).apply_(model)
    assert ("0.weight", "excluded by filter_fn") in {(entry.name, entry.reason) for entry in report.left_alone}
    ordered = ws.oldest_first(loader, 8)
    ws.dash_(by_hand, ordered, cross_entropy, **arguments)
    assert_same(snapshot(model), snapshot(by_hand))
    for method, key in ((ws.Fire(), "weight"), (ws.ShrinkPerturb(), "weight"), (ws.L2Init(), "filter_fn")):
        with pytest.raises(ws.InputError, match=f"{method} does not follow {key}"):
            WarmStart(method, batches, cross_entropy, **{key: arguments[key]})


@pytest.mark.parametrize("method", [ws.Fire(), ws.ShrinkPerturb(noise_std=0.0), ws.ShrinkPerturb(variant="renate")])
def test_methods_that_need_no_gradient_spare_layers_too(model, method):
    before = copy.deepcopy(model.state_dict())
    loader = DataLoader(pairs(20), batch_size=3)
    report = WarmStart(method, loader, cross_entropy, filter_fn=lambda layer, name: name != "0").apply_(model)
    assert ("0.weight", "excluded by filter_fn") in {(entry.name, entry.reason) for entry in report.left_alone}
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith("0.") for name in changed)


def test_dash_can_reset_the_optimizer_and_measure_batch_norm_anew():
    model, batches = trained(cnn(), batches_for((3, 6, 6), 4)), batches_for((3, 6, 6), 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    optimizer.step()
    method = ws.Dash(optimizer_state="reset", batch_norm="recalibrate")
    notes = WarmStart(method, batches, cross_entropy).apply_(model, optimizer).notes
    assert not optimizer.state
    assert any("measured anew" in note for note in notes)
    assert not any("batch-norm statistics kept" in note for note in notes)
