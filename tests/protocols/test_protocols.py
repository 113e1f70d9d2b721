"""Protocols are found by themselves, are valid settings, and say what their sources say."""

import pytest

from warmstart.comparison.settings import CompareSettings
from warmstart.protocols.registry import protocols
from warmstart.training.recipe import Recipe


@pytest.mark.parametrize("name", protocols())
def test_each_stands_for_valid_settings_that_flags_change(name):
    settings = CompareSettings.of({"protocol": name})
    assert settings.protocol == name
    for key, value in protocols()[name].stream.items():
        assert getattr(settings, key) == value
    for key in set(Recipe.described()) - {"optimizer", "precision", "batch_size"}:
        assert getattr(settings, key) == getattr(protocols()[name].recipe, key)
    changed = CompareSettings.of({"protocol": name, "lr": 0.25, "stages": 2, "precision": "fp32"})
    assert (changed.lr, changed.stages, changed.precision) == (0.25, 2, "fp32")
    assert changed.momentum == settings.momentum


@pytest.mark.parametrize("name", protocols())
def test_each_says_what_it_is_in_a_line(name):
    protocol = protocols()[name]
    assert protocol.name == name
    assert 0 < len(protocol.summary) < 120
    assert protocol.source


def test_all_that_the_design_names_are_there():
    named = {"incremental", "practice", "sota", "half", "tenth", "continual", "class-incremental"}
    assert named | {"ash-adams", "permuted-pixels", "shuffled-labels"} <= protocols().keys()


@pytest.mark.parametrize(("epochs", "left"), [("2", ()), (120, (60,)), (121, (60, 120))])
def test_of_a_protocols_milestones_those_remain_that_lie_within_other_epochs(epochs, left):
    settings = CompareSettings.of({"protocol": "half", "epochs": epochs})
    assert settings.milestones == left
    assert CompareSettings.of({"protocol": "half", "epochs": 99, "milestones": "7"}).milestones == (7,)


def test_ash_and_adams_train_by_plain_sgd_until_99_percent():
    settings = CompareSettings.of({"protocol": "ash-adams", "optimizer": "adamw"})
    assert (settings.optimizer, settings.stages, settings.stage_size) == ("adamw", 2, "50%")
    of_their_code = {"optimizer": "sgd", "lr": 1e-3, "momentum": 0, "weight_decay": 0, "batch_size": 128, "until": 0.99}
    others = {"epochs": None, "schedule": "constant", "augment": (), "new_optimizer": True}
    settings = CompareSettings.of({"protocol": "ash-adams"})
    assert {key: getattr(settings, key) for key in of_their_code | others} == of_their_code | others


def test_fires_protocols_train_by_adam():
    tenth = CompareSettings.of({"protocol": "tenth"})
    assert (tenth.optimizer, tenth.weight_decay, tenth.clip, tenth.batch_size) == ("adamw", 0, 0.5, 256)
    assert [tenth.of_stage(number).epochs for number in (1, 2)] == [1000, 100]
    assert (tenth.stages, tenth.stage_size) == (2, "10%,90%")
    assert [tenth.of_stage(number).rates.warmup for number in (1, 2)] == [100, 10], "warmup_rate 0.1 of vision/train.py"
    continual = CompareSettings.of({"protocol": "continual"})
    assert [continual.of_stage(number).epochs for number in (1, 10)] == [100, 100]
    assert [continual.of_stage(number).rates.warmup for number in (1, 10)] == [10, 10]
    assert CompareSettings.of({"protocol": "class-incremental"}).of_stage(20).rates.warmup == 10
    assert CompareSettings.of({"protocol": "tenth", "epochs": 5}).of_stage(2).rates.warmup == 0.5
    assert CompareSettings.of({"protocol": "sota", "optimizer": "sam"}).optimizer == "sam"


@pytest.mark.parametrize(
    ("given", "batch_size"),
    [
        ({}, 64),
        ({"stage_size": 999}, 64),
        ({"stage_size": 1000}, 128),
        ({"stage_size": "10%"}, 64),
        ({"order": "month"}, 64),
        ({"order": "month", "stage_size": 2000}, 128),
        ({"stage_size": 1000, "batch_size": 32}, 32),
    ],
)
def test_practice_takes_small_batches_where_stages_are_small_or_unknown(given, batch_size):
    assert CompareSettings.of({"protocol": "practice", **given}).batch_size == batch_size
