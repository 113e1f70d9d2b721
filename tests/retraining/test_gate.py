"""The gate: which candidates may go into service, and in which words."""

import numpy as np
import pytest

from warmstart.retraining.gate import behind_cold, judge
from warmstart.retraining.settings import GateSettings


def judged(candidate, current, labels=None, **settings):
    labels = np.zeros(len(candidate), np.int64) if labels is None else labels
    return judge(candidate, current, labels, ["cat", "dog"], GateSettings(**settings))


def right(*counts):
    """So many examples right, so many wrong, and so on."""
    return np.concatenate([np.full(count, place % 2 == 0) for place, count in enumerate(counts)])


def test_the_first_network_may_go_into_service():
    assert judged(right(10, 90), None).passed


@pytest.mark.parametrize(("lost", "passes"), [(0, True), (5, True), (6, False)])
def test_by_default_half_a_point_may_be_lost(lost, passes):
    verdict = judged(right(900 - lost, 100 + lost), right(900, 100))
    assert verdict.passed is passes
    assert verdict.difference == pytest.approx(-lost / 1000)
    assert ("worse than current by more than the margin of 0.5 points" in verdict.objections) is not passes


def test_better_is_shown_by_the_interval_of_the_paired_difference():
    """Of 100 examples 12 become right and 3 wrong: d = 0.09, var = (0.15 - 0.09^2) / 99, t(99; 0.975) = 1.984."""
    current, candidate = right(50, 50), right(47, 3, 12, 38)
    verdict = judged(candidate, current, promote="better")
    half = 1.98422 * ((0.15 - 0.09**2) / 99) ** 0.5
    assert (verdict.low, verdict.high) == (pytest.approx(0.09 - half, abs=1e-4), pytest.approx(0.09 + half, abs=1e-4))
    assert verdict.passed

    assert not judged(right(50, 0, 3, 47), current, promote="better").passed
    assert judged(right(0, 100), current, promote="always").passed


def test_churn_is_what_was_right_and_became_wrong():
    current, candidate = right(50, 50), right(40, 10, 20, 30)
    assert judged(candidate, current).churn == pytest.approx(0.1)
    assert judged(candidate, current, max_churn=0.1).passed
    verdict = judged(candidate, current, max_churn=0.09)
    assert verdict.objections == ("churn above --max-churn 9.0%",)


def test_no_class_may_lose_more_than_is_said():
    labels = np.repeat([0, 1], 50)
    current, candidate = right(100), right(50, 10, 40)
    assert judged(candidate, current, labels, margin=0.5).class_losses == {"cat": 0.0, "dog": pytest.approx(0.2)}
    verdict = judged(candidate, current, labels, margin=0.5, max_class_loss=0.1)
    assert verdict.objections == ("class 'dog' loses 20.0 points, above --max-class-loss",)


def test_the_warm_line_has_fallen_behind_where_the_test_shows_it():
    behind, text = behind_cold(right(50, 50), right(50, 0, 20, 30))
    assert behind
    assert text.startswith("the warm line has fallen behind: trained from scratch 70.0%, warm 50.0% (-20.0 points")
    assert not behind_cold(right(50, 50), right(51, 49))[0]
    assert not behind_cold(right(50, 50), right(50, 50))[0]
