"""The discrete framework: exactly the rules, and what the paper claims of them."""

import dataclasses

import numpy as np
import pytest
from literal import expected_accuracy, literal

from warmstart.theory.draw import draw
from warmstart.theory.learning import METHODS, learn_stream, recognised
from warmstart.theory.settings import DiscreteSettings
from warmstart.theory.study import run_study


def smaller(**changes):
    """A fifth of the paper's stage, with a gamma in proportion."""
    return DiscreteSettings(**{"features": 30, "examples": 200, "stages": 8, "gamma": 15, "seeds": 30, **changes})


SMALLER = smaller()


def small_settings(seed):
    rng = np.random.default_rng(seed)
    classes, features, examples = int(rng.integers(2, 5)), int(rng.integers(1, 7)), int(rng.integers(5, 25))
    return DiscreteSettings(
        classes=classes,
        features=features,
        examples=examples,
        stages=int(rng.integers(1, 6)),
        gamma=int(rng.integers(1, max(2, examples // 2))),
        tau=int(rng.integers(1, features + 1)),
        max_probability=float(rng.uniform(0.2, 1)),
    )


def carried_by(settings, data):
    examples = []
    for i in range(settings.examples * settings.stages):
        label, place = i % settings.classes, i // settings.classes
        examples.append((label, set(np.flatnonzero(data.carried[label][:, place]).tolist())))
    return examples


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(40))
def test_it_is_exactly_what_the_rules_say(method, seed):
    settings = small_settings(seed)
    data = draw(settings, seed)
    fast = learn_stream(settings, data, method)
    slow = literal(settings, carried_by(settings, data), method)

    for outcome, (learned, live, memorised, steps) in zip(fast, slow, strict=True):
        assert [dataclasses.astuple(step) for step in outcome.steps] == steps
        assert outcome.learned_features == len(learned)
        assert outcome.nonzero_gradient_examples == live
        assert outcome.memorised_examples == len(memorised)
        assert outcome.test_accuracy == pytest.approx(expected_accuracy(settings, data.probabilities, learned))


def test_the_expected_accuracy_is_that_of_a_large_sample():
    rng = np.random.default_rng(0)
    probabilities, learned = rng.uniform(0, 0.2, (1, 50)), rng.random((1, 50)) < 0.6
    share = recognised(probabilities, learned, 3)[0]
    carried = (rng.random((200_000, 50)) < probabilities) & learned
    assert (carried.sum(axis=1) >= 3).mean() == pytest.approx(share, abs=0.005)  # 4 standard errors


def test_a_shorter_stream_is_the_beginning_of_a_longer_one():
    shorter = smaller(stages=3)
    for method in METHODS:
        long, short = learn_stream(SMALLER, draw(SMALLER, 1), method), learn_stream(shorter, draw(shorter, 1), method)
        assert long[:3] == short


def test_classes_learn_independently_of_each_other():
    data = draw(SMALLER, 2)
    swapped = dataclasses.replace(data, probabilities=data.probabilities[::-1], carried=data.carried[::-1])
    for method in METHODS:
        for one, other in zip(learn_stream(SMALLER, data, method), learn_stream(SMALLER, swapped, method), strict=True):
            assert sorted((1 - s.label, s.feature, s.count) for s in other.steps) == sorted(
                (s.label, s.feature, s.count) for s in one.steps
            )
            assert one.test_accuracy == pytest.approx(other.test_accuracy)


def test_in_one_stage_all_methods_are_alike():
    for seed in range(5):
        settings = smaller(stages=1)
        cold, warm, ideal = (learn_stream(settings, draw(settings, seed), method) for method in METHODS)
        assert cold == warm == ideal


@pytest.mark.parametrize(
    "settings",
    [
        SMALLER,
        smaller(tau=2),
        smaller(gamma=8, classes=3),
        smaller(max_probability=0.4, tau=5),
    ],
    ids=["a fifth of the paper's", "tau 2", "three classes", "frequent features"],
)
def test_the_order_of_the_methods_that_the_paper_states(settings):
    study = run_study(settings)

    def within_two_standard_errors(more, less, measure):
        gap = study.values(more, measure) - study.values(less, measure)
        return (gap.mean(axis=0) >= -2 * gap.std(axis=0, ddof=1) / 30**0.5).all()

    for measure in ("learned_features", "test_accuracy"):
        assert within_two_standard_errors("ideal", "cold", measure)
        assert within_two_standard_errors("cold", "warm", measure)
        last = {method: study.values(method, measure)[:, -1] for method in METHODS}
        assert (last["cold"] > last["warm"]).all()
        assert (last["ideal"] > last["warm"]).all()

    time = {method: study.values(method, "nonzero_gradient_examples") for method in METHODS}
    assert (time["warm"].mean(axis=0) <= time["ideal"].mean(axis=0)).all()
    assert (time["ideal"] <= time["cold"]).all()
    assert (time["warm"][:, -1] < time["ideal"][:, -1]).all()
    assert (time["ideal"][:, -1] < time["cold"][:, -1]).all()
    assert (time["cold"] == settings.examples * np.arange(1, settings.stages + 1)).all()


def test_ideal_may_learn_a_feature_less_than_cold_in_a_single_draw():
    settings = DiscreteSettings(stages=10)  # docs/why-warm-starts-fail.md shows this one
    data = draw(settings, 0)
    last = {method: learn_stream(settings, data, method)[-1].learned_features for method in METHODS}
    assert last["ideal"] == last["cold"] - 1


def test_with_gamma_1_every_feature_that_a_live_example_carries_is_learned():
    settings = smaller(gamma=1)
    for method in METHODS:
        last = learn_stream(settings, draw(settings, 0), method)[-1]
        assert all(step.count >= 1 for step in last.steps)
        carried = draw(settings, 0).carried
        few = sum(int((of_class.sum(axis=0) < settings.tau).sum()) for of_class in carried)
        assert last.memorised_examples == few  # only those that do not carry tau features at all


def test_a_gamma_that_no_feature_reaches_leaves_everything_to_memorisation():
    settings = smaller(gamma=SMALLER.examples)
    for method in METHODS:
        first = learn_stream(settings, draw(settings, 0), method)[0]
        assert first.learned_features == 0
        assert first.memorised_examples == settings.examples
        assert first.test_accuracy == 1 / settings.classes


def test_with_tau_1_every_example_with_a_learned_feature_is_done():
    settings = smaller(tau=1)
    for method in METHODS:
        for outcome in learn_stream(settings, draw(settings, 0), method)[:1]:
            assert all(step.done == step.count for step in outcome.steps)


def test_with_the_highest_tau_nearly_nothing_is_ever_done():
    settings = smaller(tau=SMALLER.features)
    cold, warm, ideal = (learn_stream(settings, draw(settings, 0), method)[-1] for method in METHODS)
    assert cold.memorised_examples == warm.memorised_examples == ideal.memorised_examples == 8 * settings.examples
    assert warm.nonzero_gradient_examples == settings.examples
    assert ideal.nonzero_gradient_examples == 8 * settings.examples


def test_features_that_never_occur_are_never_learned():
    settings = smaller(max_probability=0)
    for method in METHODS:
        assert learn_stream(settings, draw(settings, 0), method)[-1].learned_features == 0
