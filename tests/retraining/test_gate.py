"""The gate: which candidates may go into service, and in which words."""

import numpy as np
import pytest

from warmstart.evidence.paired import two_networks
from warmstart.retraining.gate import Rival, behind_cold, judge_candidate
from warmstart.retraining.settings import GateSettings


def rival(found, known=None, stage=1):
    return None if found is None else Rival(stage, found, np.ones(len(found), bool) if known is None else known)


def judged(candidate, current, labels=None, bar=None, **settings):
    labels = np.zeros(len(candidate), np.int64) if labels is None else labels
    current = current if isinstance(current, Rival) else rival(current)
    return judge_candidate(candidate, current, bar, labels, ["cat", "dog"], GateSettings(**settings))


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


@pytest.mark.parametrize(
    ("gained", "lost", "passes"), [(4, 0, False), (6, 0, False), (7, 0, True), (12, 3, False), (13, 3, True)]
)
def test_better_is_shown_by_an_exact_test_at_half_of_five_percent(gained, lost, passes):
    """Two-sided, so that 7 : 0 is needed: (1/2)^6 > 0.0125 > (1/2)^7."""
    current, candidate = right(50, 50), right(50 - lost, lost, gained, 50 - gained)
    assert judged(candidate, current, promote="better").passed is passes
    assert judged(right(0, 100), current, promote="always").passed


def test_the_verdict_has_the_interval_and_says_its_level():
    verdict = judged(right(47, 3, 12, 38), right(50, 50))
    assert (verdict.low, verdict.high) == two_networks(12, 3, 100, 0.025)
    assert "(+9.0 points; 97.5 % interval +0.0 to +18.8)" in verdict.sentence()
    same = judged(right(50, 50), right(50, 50))
    assert (same.low, same.difference) == (None, 0)


@pytest.mark.parametrize("promote", ["margin", "better"])
def test_a_class_that_is_new_hides_no_loss_on_the_others(promote):
    """Of 1000 known examples 50 are lost; 80 of 100 of a new class, which current has all wrong, are right."""
    known = np.arange(1100) < 1000
    current, candidate = right(900, 200), right(850, 150, 80, 20)
    verdict = judged(candidate, rival(current, known), labels=(~known).astype(np.int64), promote=promote)
    assert verdict.difference == pytest.approx(0.027, abs=5e-4)
    assert verdict.known_difference == pytest.approx(-0.05)
    assert verdict.objections == (
        "worse than current, on the classes that it knows, by more than the margin of 0.5 points",
    )


def test_losses_within_the_margin_do_not_add_up_from_night_to_night():
    """Each of ten candidates loses 3 of 1000: the second one is 0.6 points below the first stage, as all others."""
    bar = rival(right(900, 100))
    current, passed = bar, []
    for number in range(2, 12):
        correct = int(current.right.sum()) - 3
        verdict = judged(right(correct, 1000 - correct), current, bar=None if current is bar else bar)
        passed.append(verdict.passed)
        if verdict.passed:
            assert not verdict.raises_bar
            current = rival(right(correct, 1000 - correct), stage=number)
    assert passed == [True] + [False] * 9
    assert verdict.objections == ("worse than stage 1, the best so far, by more than the margin of 0.5 points",)
    assert "-0.6 points to stage 1" in verdict.sentence()


def test_the_bar_is_raised_by_what_is_shown_to_be_better_and_by_an_operators_word():
    current = right(50, 50)
    assert judged(right(50, 0, 7, 43), current).raises_bar
    assert not judged(right(50, 0, 6, 44), current).raises_bar
    assert judged(right(40, 60), current, promote="always").raises_bar
    known = np.arange(100) < 50
    assert not judged(
        right(49, 1, 30, 20), rival(current, known)
    ).raises_bar  # 30 of classes that are new, one less of its own


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
