from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import stdtr

from made_up import change, drop, make_results
from warmstart.evidence.sequential import look, planned_looks
from warmstart.evidence.verdict import judge
from warmstart.runs.results import Results
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState

METHODS = ("cold", "warm", "shrink-perturb", "dash")
LOOKS = (5, 10, 20)
CLAIMS = {"better", "worse", "no worse"}


@pytest.mark.parametrize(
    ("first", "most", "looks"),
    [
        (5, 20, (5, 10, 20)),
        (5, 5, (5,)),
        (5, 6, (5, 6)),
        (5, 30, (5, 10, 20, 30)),
        (1, 20, (3, 6, 12, 20)),  # below three seeds nothing could be claimed
        (1, 1, (1,)),
        (1, 2, (2,)),
    ],
)
def test_looks_double_up_to_the_most(first, most, looks):
    assert planned_looks(first, most) == looks


def grid(metric, steps=(100, 50, 60, 70), scores=None):
    """A comparison of one stage: a row a method and seed, from ``metric`` of shape (methods, seeds).

    ``steps`` are of a method, or of a method and a seed.
    """
    runs = {}
    fixed = {"data": "made up", "model": "none", "optimizer": "sgd", "stage": 1, "train_examples": 1}
    measured = {"test_loss": 0.0, "train_accuracy": 1.0, "epochs": 1, "train_seconds": 0.0, "method_seconds": 0.0}
    for place, method in enumerate(METHODS):
        for seed, value in enumerate(metric[place].tolist()):
            count = int(np.broadcast_to(steps[place], metric.shape[1:])[seed])
            row = {"method": method, "seed": seed, "test_accuracy": value, "steps": count}
            known = None if scores is None else torch.from_numpy(scores[place, seed])
            runs[method, seed] = RunState(rows=[StageResult(**fixed, **measured, **row)], scores=known)
    return Results(METHODS, range(metric.shape[1]), 1, runs=runs)


def verdicts_until_decided(results, margin):
    """The verdicts at the looks of a comparison that goes on until one of them decides."""
    wanted, seeds = LOOKS[0], 0
    while wanted > seeds:
        seeds = wanted
        found = look(replace(results.of_first(seeds), seeds=results.seeds), LOOKS, margin=margin)
        yield found.verdict
        wanted = found.wanted


def claims_until_decided(results, margin):
    """What is claimed at any of them."""
    return {c.decision for verdict in verdicts_until_decided(results, margin) for c in verdict.comparisons} & CLAIMS


def falsely_claimed(make, *, grids, margin):
    """The share of grids with any claim, where none would be right."""
    rng = np.random.default_rng(0)
    return sum(bool(claims_until_decided(make(rng), margin)) for _ in range(grids)) / grids


# The error


def no_difference(rng):
    return grid(0.9 + rng.normal(0, 0.01, (len(METHODS), LOOKS[-1])))


def loss_of_the_margin(rng):
    """It is neither no worse than the margin, nor worse."""
    level = np.array([[0.9], [0.88], [0.88], [0.88]])
    return grid(level + rng.normal(0, 0.01, (len(METHODS), LOOKS[-1])))


def equally_many_answers_right(rng):
    """Answers of 200 test examples, all of one difficulty's chance, whatever the method."""
    chance = rng.beta(8, 2, 200)
    answers = (rng.random((len(METHODS), LOOKS[-1], 200)) < chance).astype(np.float32)
    return grid(answers.mean(axis=2), scores=answers)


def test_at_most_5_percent_of_2000_grids_without_any_difference_make_a_claim():
    assert falsely_claimed(no_difference, grids=2000, margin=0.0) <= 0.05


@pytest.mark.parametrize(
    ("make", "margin", "grids"), [(loss_of_the_margin, 0.02, 500), (equally_many_answers_right, 0.0, 400)]
)
def test_nor_do_grids_at_the_margin_or_of_right_and_wrong_answers(make, margin, grids):
    # With fewer grids the share itself is uncertain, by three standard errors.
    assert falsely_claimed(make, grids=grids, margin=margin) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / grids)


def test_a_saving_of_steps_that_is_not_there_is_recommended_in_at_most_5_percent():
    """All methods are equally good, which is soon shown, and take equally many steps in the mean."""
    rng, false, grids = np.random.default_rng(0), 0, 300
    shape = (len(METHODS), LOOKS[-1])
    for _ in range(grids):
        results = grid(0.9 + rng.normal(0, 1e-4, shape), steps=np.exp(rng.normal(7, 0.1, shape)))
        false += any(verdict.recommended != "cold" for verdict in verdicts_until_decided(results, 0.005))
    assert false / grids <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / grids)


def test_the_error_over_all_looks_is_below_5_percent_and_little_of_it_is_wasted():
    """Of t statistics of three methods against one cold, each judged at the level that its look takes."""
    rng = np.random.default_rng(1)
    results, errors = no_difference(rng), {}
    for seeds in reversed(LOOKS):
        for method in METHODS:
            for seed in range(seeds, LOOKS[-1]):
                drop(results, method, seed=seed)
        errors[seeds] = 1 - look(results, LOOKS).verdict.level_of_each
    assert errors == pytest.approx({seeds: 0.05 * seeds / sum(LOOKS) / 3 for seeds in LOOKS})
    difference = rng.normal(0, 1, (50_000, len(METHODS), LOOKS[-1]))
    difference = difference[:, 1:] - difference[:, :1]
    claimed = np.zeros(len(difference), bool)
    for seeds, error in errors.items():
        seen = difference[:, :, :seeds]
        t = seen.mean(-1) / (seen.std(-1, ddof=1) / np.sqrt(seeds))
        claimed |= (2 * stdtr(seeds - 1, -abs(t)) <= error).any(axis=1)
    assert 0.04 < claimed.mean() < 0.046


def test_with_the_whole_error_at_each_look_too_many_would():
    """What splitting prevents: the same grids, each look judged at 95 %."""
    rng, false, grids = np.random.default_rng(0), 0, 500
    for _ in range(grids):
        results = no_difference(rng)
        verdicts = (judge(results.of_first(seeds)) for seeds in LOOKS)
        false += any(c.decision in CLAIMS for verdict in verdicts for c in verdict.comparisons)
    assert false / grids > 0.08


# The state


def unclear(seeds=20, done=20):
    """DASH differs little from cold, and costs less."""
    results = make_results(("cold", "dash"), seeds=seeds, test_size=300, levels={"dash": (0.943, 60)}, stages=2)
    for method in results.methods:
        for seed in range(done, seeds):
            drop(results, method, seed=seed)
    return results


def test_a_look_that_does_not_decide_wants_the_next_and_says_so():
    found = look(unclear(done=5), LOOKS)

    assert found.wanted == 10
    assert not found.verdict.decided
    assert list(found.results.seeds) == [0, 1, 2, 3, 4]
    assert found.line == "look 1 of 3, 5 seeds, 99.3 % intervals: dash unclear; not decided; seeds 5 to 9 come next"
    assert "no difference that 5 seeds can show (99.3 % interval " in found.verdict.sentence
    assert found.verdict.notes[-1] == (
        "Look 1 of 3, 5 seeds: not decided; seeds 5 to 9 come next. The error of 5 % is split over 3 looks, in "
        "proportion to their seeds: at this one intervals are at 99.3 %."
    )


def test_seeds_beyond_a_look_count_only_once_all_their_runs_are_over():
    at_first, inside = look(unclear(done=5), LOOKS), look(unclear(done=9), LOOKS)
    assert inside.verdict == at_first.verdict
    assert inside.line == at_first.line
    assert look(unclear(done=10), LOOKS).line.startswith("look 2 of 3, 10 seeds, 98.6 % intervals")


def test_the_last_look_ends_it_decided_or_not():
    found = look(unclear(), LOOKS)
    assert found.wanted == 20
    assert found.line.endswith("; not decided, and no seeds are added")
    assert found.verdict.recommended == "cold"
    assert found.verdict.sentence.startswith("Stay with cold for now")


def test_a_look_that_decides_wants_no_more():
    results = make_results(seeds=20)
    for method in results.methods:
        for seed in range(5, 20):
            drop(results, method, seed=seed)
    found = look(results, LOOKS)
    assert (found.wanted, found.verdict.recommended, found.verdict.decided) == (5, "dash", True)
    assert found.line.endswith("dash better; decided")
    assert "(99.3 % interval" in found.verdict.sentence
    # Its interval is the wider one.
    ours, plain = found.verdict.comparisons[-1], judge(found.results).comparisons[-1]
    assert ours.low < plain.low < plain.high < ours.high
    assert found.verdict.error == pytest.approx(0.05 / 7)


def test_before_the_first_look_there_is_what_has_been_done_so_far():
    found = look(unclear(done=4), LOOKS)
    assert (found.wanted, found.line, found.verdict.decided) == (5, "", False)
    assert found.verdict.sentence.startswith("So far (8 of 10 runs): stay with cold")
    assert "The first look is at 5 seeds, the last at 20. " in found.verdict.notes[-1]


def test_where_more_seeds_cannot_allow_a_claim_none_are_added():
    diverged = unclear(done=5)
    change(diverged, "cold", seed=1, stage=1, status="diverged")
    without = make_results(("warm", "dash"), seeds=20)
    for results in (diverged, without):
        found = look(results, LOOKS)
        assert found.verdict.recommended is None
        assert found.wanted == (5 if results is diverged else 20)
        assert found.line.endswith("not decided, and no seeds are added")


def test_a_method_that_diverged_does_not_keep_a_look_waiting():
    results = unclear(done=5)
    drop(results, "dash", seed=2, after=1)
    change(results, "dash", seed=2, stage=1, status="diverged")
    assert look(results, LOOKS).line.startswith("look 1 of 3")


def test_one_look_is_the_plain_verdict():
    results = unclear()
    found = look(results, (20,))
    assert (found.verdict, found.wanted, found.line) == (judge(results), 20, "")


def test_the_shares_of_the_looks_are_the_whole_error():
    errors = [look(unclear(done=seeds), LOOKS).verdict.error for seeds in LOOKS]
    assert errors == pytest.approx([0.05 / 7, 0.05 * 2 / 7, 0.05 * 4 / 7])


def test_decided_is_what_more_seeds_would_not_be_needed_for():
    assert judge(make_results()).decided  # dash is recommended
    assert judge(make_results(("cold", "warm"))).decided  # every cheaper method is worse
    assert judge(make_results(("cold", "dash"), levels={"dash": (0.975, 400)})).decided  # none is cheaper
    assert not judge(unclear()).decided
    assert not judge(make_results(seeds=2)).decided
    assert not judge(make_results(("cold",))).decided
    partial = make_results()
    drop(partial, "dash", seed=4)
    assert not judge(partial).decided
