"""What a grid will cost, from the seconds of a step."""

from copy import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest

from warmstart.data.load import load
from warmstart.grids import estimate
from warmstart.grids.estimate import Estimator
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.streams.settings import StreamSettings
from warmstart.training.recipe import Recipe

STREAM = {"stages": 3, "stage_size": 100}
KEPT = 6
"""Batches that an average of rate 0.9 depends on: 0.1 ** 6 is the tolerance."""


@pytest.fixture(scope="module")
def averaged():
    """How many examples an average reads in a run of three stages of 100 images, by the estimate."""
    task = ImageTask(load("digits"), "small-cnn", Recipe(batch_size=20, epochs=1), StreamSettings.of(STREAM))
    estimator = Estimator(task, ["sgd"], 1, lambda key: 1.0)

    def examples(method):
        warm, cost = estimator.costs([RunKey(name, 0, "sgd") for name in ("warm", method)], {})
        return (cost.seconds - warm.seconds) / estimator.seconds_a_step["sgd"] * 20

    return examples


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("dash[alpha=0.9]", 200 + 300),  # batches of a stage's size: all that has arrived
        ("dash[alpha=0.9,batch_size=10]", 2 * KEPT * 10),
        ("dash[alpha=0.9,batch_size=40]", 200 + KEPT * 40),
        ("dash[alpha=0.9,batch_size=40,tolerance=0]", 200 + 300),
    ],
)
def test_an_average_costs_the_examples_of_the_batches_that_matter_in_the_methods_own_size(averaged, method, expected):
    assert averaged(method) == pytest.approx(expected)


def test_what_is_measured_besides_is_counted_by_the_examples_that_it_reads(monkeypatch):
    """Each stage of 100 images as long as the last, where 32 of 100 new and 200 old are tried, at 1 s a try."""
    monkeypatch.setattr(estimate, "diagnose", lambda *args, only: SimpleNamespace(seconds=1.0))
    task = ImageTask(load("digits"), "small-cnn", Recipe(batch_size=20, epochs=1), StreamSettings.of(STREAM))
    each = Estimator(replace(task, diagnosed=True), ["sgd"], 1, lambda key: 1.0)
    plain = copy(each)
    plain._seconds_to_diagnose = 0.0
    costs = [one.costs([RunKey("warm", 0, "sgd")], {})[0].seconds for one in (plain, each)]
    assert costs[1] - costs[0] == pytest.approx(3 * (1 + 100 / 32 + 300 / 32))
    assert Estimator(task, ["sgd"], 1, lambda key: 1.0)._seconds_to_diagnose == 0
