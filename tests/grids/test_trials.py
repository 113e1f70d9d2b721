"""Equal tuning: as many trials for each method, over one space, whatever each method has besides."""

import math

import pytest

from warmstart.grids.trials import RECIPE_SPACE, trials_of
from warmstart.methods.registry import methods, parse_method
from warmstart.runs.own_recipe import own_recipe
from warmstart.training.recipe import OPTIMIZERS

N = 12


def varied(labels):
    """The settings in which trials differ."""
    told = [{**parse_method(own_recipe(label)[0]).settings(), **own_recipe(label)[1]} for label in labels[1:]]
    return {name for name in told[0] if len({one[name] for one in told}) > 1}


@pytest.mark.parametrize("name", list(methods()))
def test_every_method_has_as_many_trials_the_first_as_given(name):
    labels = trials_of(name, N, "sgd")

    assert labels[0] == name
    assert len(set(labels)) == N
    for label in labels:  # each is a method that can be made, and is called so
        assert str(parse_method(own_recipe(label)[0])) == own_recipe(label)[0]


def test_all_methods_share_the_pairs_of_rate_and_weight_decay():
    pairs = [[own_recipe(label)[1] for label in trials_of(name, N, "sgd")] for name in methods()]

    assert all(pair == pairs[0] for pair in pairs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_and_decays_lie_one_in_each_part_of_their_range(optimizer):
    for key, place in RECIPE_SPACE[optimizer].items():
        values = [own_recipe(label)[1][key] for label in trials_of("warm", N, optimizer)[1:]]
        shares = [math.log(value / place.low) / math.log(place.high / place.low) for value in values]
        # Two digits may move a value at the edge of its part over it, by a small fraction of a part.
        parts = sorted(share * (N - 1) for share in shares)
        assert all(part == pytest.approx(index + 0.5, abs=0.56) for index, part in enumerate(parts))


@pytest.mark.parametrize("name", [name for name, kind in methods().items() if kind().search])
def test_every_searched_setting_is_one_of_the_methods_and_valid_at_both_ends(name):
    kind = methods()[name]
    for setting, place in kind().search.items():
        for share in (0.0, 0.5, 1.0):
            assert kind(**{setting: place.at(share)}).settings()[setting] == place.at(share)


def test_what_stands_in_brackets_stays():
    labels = trials_of("dash[alpha=0.1,lr=0.02]", N, "sgd")

    assert labels[0] == "dash[alpha=0.1,lr=0.02]"
    assert all(label.startswith("dash[alpha=0.1,") and ",lr=0.02" in label for label in labels)
    assert len({parse_method(own_recipe(label)[0]).lambda_ for label in labels}) == N
    assert varied(labels) == {"weight_decay", "lambda_"}


def test_a_method_with_nothing_left_to_search_has_one_trial():
    assert trials_of("cold[lr=0.1,weight_decay=0.0]", N, "sgd") == ["cold[lr=0.1,weight_decay=0.0]"]


def test_shrinking_at_every_update_is_searched_by_rate_and_decay_alone():
    assert varied(trials_of("shrink-perturb[variant=dohare]", N, "sgd")) == {"lr", "weight_decay"}
    assert varied(trials_of("shrink-perturb", N, "sgd")) == {"lr", "weight_decay", "shrink", "noise_std"}


def test_a_users_own_class_keeps_its_path(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom warmstart import Warm\n"
        "@dataclass(frozen=True)\nclass Own(Warm):\n    strength: float = 1.0\n    name: ClassVar[str] = 'own'\n"
    )
    monkeypatch.chdir(tmp_path)

    assert trials_of("mine:Own", 3, "sgd")[1].startswith("mine:Own[lr=")
