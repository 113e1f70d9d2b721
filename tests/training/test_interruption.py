"""A stage that is stopped at a segment's end, and goes on in another process."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from made_stage import SETTINGS, made_examples, same_weights, seed_of
from torch import nn

from networks import cnn
from warmstart.training import loop
from warmstart.training.loop import Hooks, Progress, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import OPTIMIZERS, Recipe

PLAIN = Recipe(batch_size=2, epochs=2)
EVERYTHING = Recipe(
    batch_size=2,
    epochs=2,
    schedule="step",
    milestones=(1,),
    warmup=1,
    augment=("crop", "flip", "rotate", "resized-crop"),
)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr(loop, "SEGMENT", 3)


def network():
    return nn.Sequential(nn.Dropout(0.2), cnn())


class Saves(list):
    """Everything that a stage says is to be saved, as it comes back from a file."""

    def __init__(self, model, optimizer, due=lambda: True):
        self.model, self.optimizer = model, optimizer
        self.hooks = Hooks(save_due=due, save=self.save)

    def save(self, progress):
        progress = Progress(**json.loads(json.dumps(dataclasses.asdict(progress))))
        state = self.model.state_dict(), self.optimizer.state_dict()
        self.append((progress, *copy.deepcopy(state)))


def stage(name, recipe, start=None, weights=None, state=None, due=lambda: True):
    """A stage of 10 batches an epoch; 4 segments, of which the last has one batch."""
    model = network()
    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), model)
    if weights is not None:
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        torch.rand(7)  # whatever happened to the global generator meanwhile
    saves = Saves(model, optimizer, due)
    progress = train_stage(model, optimizer, made_examples(20), recipe, seed_of=seed_of, hooks=saves.hooks, start=start)
    return progress, model, optimizer, saves


def without_seconds(progress):
    return dataclasses.replace(progress, seconds=0.0)


@pytest.mark.parametrize("recipe", [PLAIN, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_from_any_save_gives_the_same_bits(name, recipe):
    whole, through, optimizer, saves = stage(name, recipe)
    assert [(p.epochs, p.batches, p.steps) for p, *_ in saves] == [
        *[(0, 3, 3), (0, 6, 6), (0, 9, 9), (1, 0, 10)],
        *[(1, 3, 13), (1, 6, 16), (1, 9, 19)],
    ]

    for start, weights, state in saves:
        progress, model, resumed, later = stage(name, recipe, start, weights, copy.deepcopy(state))

        assert without_seconds(progress) == without_seconds(whole)
        assert same_weights(model, through)
        assert same_state(resumed, optimizer)
        assert [without_seconds(p) for p, *_ in later] == [
            without_seconds(p) for p, *_ in saves[len(saves) - len(later) :]
        ]


def same_state(optimizer, other):
    ours, theirs = optimizer.state_dict(), other.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    return all(
        torch.equal(value, theirs["state"][key][name]) if isinstance(value, torch.Tensor) else True
        for key, entry in ours["state"].items()
        for name, value in entry.items()
    )


def test_what_is_saved_has_the_optimizers_own_rate_in_the_midst_of_warm_up():
    *_, saves = stage("sgd", EVERYTHING)

    assert {state["param_groups"][0]["lr"] for _, _, state in saves} == {SETTINGS["lr"]}


def test_saving_changes_nothing():
    saved, model, _, saves = stage("sgd", EVERYTHING)
    silent, other, _, none = stage("sgd", EVERYTHING, due=lambda: False)

    assert saves
    assert not none
    assert same_weights(model, other)
    assert without_seconds(saved) == without_seconds(silent)


def test_a_stage_is_saved_only_when_that_is_due():
    asked = []

    def every_third():
        asked.append(None)
        return len(asked) % 3 == 0

    *_, saves = stage("sgd", PLAIN, due=every_third)

    assert [(p.epochs, p.batches) for p, *_ in saves] == [(0, 9), (1, 6)]


def test_the_time_of_saving_is_not_the_stages_and_the_time_before_a_stop_is(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, inputs):
            now[0] += 1
            return self.net(inputs)

    def save(progress):
        saves.append(progress)
        now[0] += 100

    saves, model = [], Slow()
    optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model)
    hooks = Hooks(save_due=lambda: True, save=save)
    arguments = (model, optimizer, made_examples(20), PLAIN)

    assert train_stage(*arguments, seed_of=seed_of, hooks=hooks).seconds == 20
    assert [p.seconds for p in saves] == [3, 6, 9, 10, 13, 16, 19]
    assert train_stage(*arguments, seed_of=seed_of, start=saves[1]).seconds == 20


def test_a_loss_that_is_not_finite_before_the_stop_is_remembered():
    model = network()
    optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model)
    start = Progress(steps=3, batches=3, accuracy_sum=3.0, loss_sum=math.nan)

    assert train_stage(model, optimizer, made_examples(20), PLAIN, seed_of=seed_of, start=start).status == "diverged"


def test_randomness_is_seeded_at_every_segment_and_the_order_at_the_first(monkeypatch):
    asked, seen = [], []
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seen.append(seed))

    def recorded(epoch, segment):
        asked.append((epoch, segment))
        return seed_of(epoch, segment)

    model = cnn()
    optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model)
    seen.clear()
    start = Progress(steps=6, batches=6)
    train_stage(model, optimizer, made_examples(20), PLAIN, seed_of=recorded, start=start)

    assert asked == [(0, 0), (0, 2), (0, 3), (1, 0), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert seen == [seed_of(*place) for place in [(0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]]
