"""What holds for every method, driven by the table in method_table.py."""

import dataclasses
import io
import json
import pickle

import pytest
import torch
from method_table import ROWS, Network
from torch.nn.functional import cross_entropy

from networks import batches_for
from stateful_methods import METHODS
from warmstart import InputError, Report, Stage, parse_method
from warmstart.integrations import WarmStart
from warmstart.layers.units import watch
from warmstart.methods.registry import methods
from warmstart.methods.units_and_activations import UnitsOf

each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.spelled)


class Situation:
    """A trained network on the eve of its second stage, with gradients in place."""

    def __init__(self, seed=7):
        self.batches = batches_for((3, 6, 6), 6)
        torch.manual_seed(0)
        self.model = Network()
        self.initial = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        for batch in self.batches:
            self.train_on(batch)
        with torch.no_grad():
            self.model.body.bias.add_(0.01)  # batch norm hides it from the loss, so that training leaves it
            self.model.norm.bias[3] = -9.0  # this unit is silent
        self.draws = []
        self.stage = Stage(
            number=2,
            seen=48,
            new=24,
            batches=lambda size: self.batches,
            forward_loss=self.loss,
            fresh=self.fresh,
            initial=self.initial,
            generator=torch.Generator().manual_seed(seed),
            optimizer=self.optimizer,
        )
        self.stage.units = UnitsOf(self.model, self.stage.batches, self.loss)
        with watch(self.model, self.stage.units()) as self.stage.activations:
            self.backward(self.batches[0])

    @staticmethod
    def loss(model, batch):
        return cross_entropy(model(batch[0]), batch[1])

    def fresh(self):
        with torch.random.fork_rng():
            torch.manual_seed(1000 + len(self.draws))
            self.draws.append(Network())
        return self.draws[-1]

    def backward(self, batch):
        self.optimizer.zero_grad()
        self.loss(self.model, batch).backward()

    def train_on(self, batch):
        self.backward(batch)
        self.optimizer.step()

    def weights(self):
        return copied(self.model.state_dict())

    def gradients(self):
        return copied({name: p.grad for name, p in self.model.named_parameters() if p.grad is not None})

    def momentum(self):
        named = {parameter: name for name, parameter in self.model.named_parameters()}
        return copied({named[p]: state["momentum_buffer"] for p, state in self.optimizer.state.items()})


def copied(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def changed(before, after):
    """Names that came, went or hold another bit."""
    names = before.keys() | after.keys()
    return {n for n in names if n not in before or n not in after or not torch.equal(before[n], after[n])}


def test_every_method_has_a_row():
    missing = set(methods()) - {parse_method(row.spelled).name for row in ROWS}
    assert not missing, f"no row in method_table.py for {sorted(missing)}"
    for name, kind in methods().items():
        tried = {key for row in ROWS if parse_method(row.spelled).name == name for key in row.settings}
        known = {field.name.rstrip("_") for field in dataclasses.fields(kind)}
        assert tried == known, f"method_table.py: settings of {name}"


@each
def test_new_data_changes_exactly_these_tensors(row):
    now = Situation()
    before, gradients, momentum = now.weights(), now.gradients(), now.momentum()
    flags = {name: layer.training for name, layer in now.model.named_modules()}
    initial, random_state = copied(now.initial), torch.get_rng_state()
    parse_method(row.spelled).on_new_data(now.model, now.stage)
    assert changed(before, now.weights()) == row.new_data
    assert not changed(gradients, now.gradients()), "gradients belong to the caller"
    assert {name: layer.training for name, layer in now.model.named_modules()} == flags
    assert not changed(initial, now.initial), "the first weights are only read"
    assert torch.equal(random_state, torch.get_rng_state()), "randomness comes from the stage's generator"
    assert len(momentum) == 9
    if row.optimizer == "kept":
        assert not changed(momentum, now.momentum())
    else:
        assert now.momentum() == {}


@each
def test_updates_change_exactly_these_tensors(row):
    now, method = Situation(), parse_method(row.spelled)
    before, gradients, momentum = now.weights(), now.gradients(), now.momentum()
    method.after_backward(now.model, now.stage)
    assert changed(gradients, now.gradients()) == row.gradients
    assert not changed(before, now.weights())
    gradients = now.gradients()
    method.after_step(now.model, now.stage)
    assert changed(before, now.weights()) == row.updates
    assert not changed(gradients, now.gradients())
    assert changed(momentum, now.momentum()) == row.moments
    assert (now.optimizer.param_groups[0]["lr"] != 0.05) == row.rate
    assert method.acts_on_updates or not (row.gradients or row.updates or row.rate)


@each
def test_the_network_shares_no_memory_with_what_it_was_made_from(row):
    now, method = Situation(), parse_method(row.spelled)
    method.on_new_data(now.model, now.stage)
    initial, draws = copied(now.initial), [copied(draw.state_dict()) for draw in now.draws]
    for batch in now.batches:
        now.backward(batch)
        method.after_backward(now.model, now.stage)
        now.optimizer.step()
        method.after_step(now.model, now.stage)
    assert not changed(initial, now.initial)
    for draw, then in zip(now.draws, draws, strict=True):
        assert not changed(then, copied(draw.state_dict()))
    trained = now.weights()
    for draw in now.draws:
        with torch.no_grad():
            for tensor in draw.parameters():
                tensor.fill_(7.0)
    assert not changed(trained, now.weights())


@each
def test_a_seed_repeats_it_and_another_one_does_not(row):
    def outcome(seed):
        now, method = Situation(seed), parse_method(row.spelled)
        method.on_new_data(now.model, now.stage)
        method.after_backward(now.model, now.stage)
        method.after_step(now.model, now.stage)
        return {**now.weights(), **{f"grad {name}": g for name, g in now.gradients().items()}}

    assert not changed(outcome(1), outcome(1))
    changes = row.new_data | row.updates | {f"grad {name}" for name in row.gradients}
    assert changed(outcome(1), outcome(2)) == ((row.drawn or changes) if row.random else set())


@each
def test_the_report_fits_80_columns_and_is_plain_data(row):
    now = Situation()
    report = parse_method(row.spelled).on_new_data(now.model, now.stage)
    assert report.method == parse_method(row.spelled).name
    assert all(len(line) <= 80 for line in str(report).splitlines()), str(report)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["notes"], "a report says what it did"
    assert Report.from_dict(data) == report


@each
def test_a_run_that_resumes_remembers_what_was_done(row):
    now = Situation()

    def warm_start():
        options = {"forward_loss": now.loss, "make_model": now.fresh, "initial": now.initial}
        return WarmStart(parse_method(row.spelled), now.batches, **options)

    first, resumed = warm_start(), warm_start()
    first.prepare(now.model)
    first.apply_(now.model, now.optimizer)
    after = now.weights()
    saved = first.state_dict()
    tensors = copied(saved.pop("state"))
    resumed.load_state_dict({**json.loads(json.dumps(saved)), "state": tensors})
    assert resumed.report == first.report
    assert resumed.apply_(now.model, now.optimizer) is None
    assert not changed(after, now.weights())


@pytest.mark.parametrize("spelled", [*(row.spelled for row in ROWS), *METHODS])
def test_interrupted_after_any_update_it_goes_on_with_the_same_bits(spelled):
    def begun():
        now = Situation()
        options = {"forward_loss": now.loss, "make_model": now.fresh, "initial": now.initial}
        warm_start = WarmStart(parse_method(spelled), now.batches, **options)
        warm_start.prepare(now.model)
        return now, warm_start

    def updates(now, warm_start, first):
        for step in range(first, 6):
            now.backward(now.batches[step])
            warm_start.after_backward(now.model, step)
            now.optimizer.step()
            warm_start.after_step(now.model, step)
            file = io.BytesIO()
            parts = {"model": now.model, "optimizer": now.optimizer, "warm_start": warm_start}
            torch.save({name: part.state_dict() for name, part in parts.items()}, file)
            yield file

    now, warm_start = begun()
    warm_start.apply_(now.model, now.optimizer)
    files = list(updates(now, warm_start, 0))
    for step, file in enumerate(files, start=1):
        file.seek(0)
        saved = torch.load(file)
        resumed, again = begun()
        resumed.model.load_state_dict(saved["model"])
        resumed.optimizer.load_state_dict(saved["optimizer"])
        again.load_state_dict(saved["warm_start"])
        assert again.apply_(resumed.model, resumed.optimizer, step=step) is None
        list(updates(resumed, again, step))
        assert not changed(now.weights(), resumed.weights())
        assert not changed(now.momentum(), resumed.momentum())
        assert not changed(warm_start.state_dict()["state"], again.state_dict()["state"])


@each
def test_a_spelled_name_comes_back_as_it_was(row):
    method = parse_method(row.spelled)
    assert str(method) == row.spelled
    assert parse_method(str(method)) == method
    for key, value in row.settings.items():
        spelled = f"{method.name}[{key}={value}]"
        assert str(parse_method(spelled)) == spelled
        assert parse_method(spelled) != method


@each
def test_it_is_frozen_hashable_and_pickles(row):
    method = parse_method(row.spelled)
    assert pickle.loads(pickle.dumps(method)) == method
    assert hash(method) == hash(parse_method(row.spelled))
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, None)


@each
def test_wrong_settings_are_refused_when_it_is_made(row):
    name = parse_method(row.spelled).name
    for setting in row.wrong:
        with pytest.raises(InputError) as refused:
            parse_method(f"{name}[{setting}]")
        assert "\n" not in str(refused.value)
        assert setting.partition("=")[0] in str(refused.value), f"{setting}: {refused.value}"


@each
def test_each_of_its_settings_is_described_and_its_default_is_valid(row):
    kind = type(parse_method(row.spelled))
    assert list(kind.described()) == [field.name for field in dataclasses.fields(kind)]
    kind.check(**{field.name: field.default for field in dataclasses.fields(kind)})
    assert all(setting.help and not setting.help.endswith(".") for setting in kind.described().values())


@each
def test_it_names_its_summary_and_source(row):
    kind = type(parse_method(row.spelled))
    assert kind.summary
    assert kind.source
    assert "\n" not in kind.summary + kind.source
    assert kind.__doc__
