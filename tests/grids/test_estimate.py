"""What a grid will cost, from the seconds of a step."""

import pytest

from warmstart.data.load import load
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
