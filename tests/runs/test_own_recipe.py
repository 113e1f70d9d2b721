"""A method may have a rate and a weight decay of its own: in its name, in its optimizer, in nobody else's."""

import pytest

from warmstart.comparison.settings import CompareSettings
from warmstart.data.load import load
from warmstart.errors import InputError
from warmstart.methods.dash import Dash
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.own_recipe import label_with_recipe, own_recipe, with_recipe


@pytest.mark.parametrize(
    ("text", "plain", "changes"),
    [
        ("dash", "dash", {}),
        ("dash[alpha=0.1]", "dash[alpha=0.1]", {}),
        ("cold[lr=0.01]", "cold", {"lr": 0.01}),
        ("dash[lr=0.01, alpha=0.1,weight_decay=5e-4]", "dash[alpha=0.1]", {"lr": 0.01, "weight_decay": 0.0005}),
        ("warm[weight_decay=0]", "warm", {"weight_decay": 0.0}),
    ],
)
def test_a_name_is_taken_apart(text, plain, changes):
    assert own_recipe(text) == (plain, changes)


def test_a_label_says_all_once_and_is_read_back():
    label = label_with_recipe("dash[weight_decay=5e-4, lambda=0.05,lr=1e-2]")
    assert label == "dash[lambda=0.05,lr=0.01,weight_decay=0.0005]"
    assert label_with_recipe(label) == label
    assert with_recipe("cold", {}) == "cold"
    assert with_recipe("cold", {"lr": 0.1}) == "cold[lr=0.1]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cold[lr=fast]", "cold[lr] is 'fast'"),
        ("cold[lr=0]", "cold[lr] is 0.0; it must be a finite number, above 0"),
        ("cold[weight_decay=-1]", "cold[weight_decay] is -1.0; it must be a finite number, at least 0"),
        ("cold[lr=0.1,lr=0.2]", "sets lr twice"),
        ("cold[momentum=0.5]", "cold has no setting 'momentum'"),
        ("cold[lr=nan]", "finite"),
    ],
)
def test_a_wrong_value_is_one_line(text, words):
    with pytest.raises(InputError) as refused:
        CompareSettings.of({"methods": (text,)})
    assert words in str(refused.value)


def test_the_optimizer_of_that_method_alone_has_it():
    settings = CompareSettings.of({"methods": "cold,dash[alpha=0.1,lr=0.02,weight_decay=0.001]", "lr": 0.5})
    task = ImageTask(load("digits"), "small-cnn", settings, settings)
    groups = {
        method: task.make_optimizer(task.make_model(), RunKey(method, 0, "sgd")).param_groups[0]
        for method in settings.methods
    }
    assert [(group["lr"], group["weight_decay"]) for group in groups.values()] == [(0.5, 0.0), (0.02, 0.001)]
    assert task.method(settings.methods[1]) == Dash(alpha=0.1)
