"""Seeds that are tested on different examples: one test set, a rotating fifth, one a seed."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from made_up import make_results
from warmstart.evidence.comparisons import estimate_difference
from warmstart.evidence.paired import estimate, level_text, ratio_interval, two_networks

ONE, ROTATED, OWN = [6], [2] * 5, [1] * 8
"""How many seeds share each test set."""


def draw(rng, sizes, stds, size=200, truth=0.0):
    """For each test set, its seeds' differences on its examples, with the stds of seed, example and both."""
    of_seed, of_example, of_both = stds
    return [
        truth
        + rng.normal(0, of_seed, (seeds, 1))
        + rng.normal(0, of_example, size)
        + rng.normal(0, of_both, (seeds, size))
        for seeds in sizes
    ]


def variance(found):
    """Of the difference, unbiased."""
    return found.of_seeds + found.of_examples


def estimated(by_example):
    return estimate(np.concatenate([scores.mean(axis=1) for scores in by_example]), *by_example)


@pytest.mark.parametrize("sizes", [ONE, ROTATED, OWN, [2, 2, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("stds", [(0.0, 0.3, 0.02), (0.01, 0.2, 0.2), (0.03, 0.1, 0.1)])
def test_the_variance_is_unbiased_and_95_percent_intervals_hold_the_truth_in_95_percent(sizes, stds):
    rng = np.random.default_rng(1)
    truth, size, repeats = 0.02, 200, 2000
    found = [estimated(draw(rng, sizes, stds, size, truth)) for _ in range(repeats)]

    seeds, of_pair = sum(sizes), stds[1] ** 2 / size
    pairs = sum(count * (count - 1) for count in sizes) / (seeds * (seeds - 1))
    of_one = stds[0] ** 2 + of_pair + stds[2] ** 2 / size
    exact = of_one / seeds + (seeds - 1) / seeds * pairs * of_pair
    assert np.mean([variance(one) for one in found]) == pytest.approx(exact, rel=0.06)
    assert np.var([one.difference for one in found]) == pytest.approx(exact, rel=0.1)
    held = sum(low <= truth <= high for low, high in (one.interval(0.95) for one in found)) / repeats
    # Three standard errors of the simulation are 0.015; where single answers are a good part of what seeds differ by,
    # their floor holds more.
    assert 0.935 <= held <= 0.985


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("stds", [(0.01, 0.04, 0.05), (0.01, 0.14, 0.1), (0.0, 0.1, 0.2)])
def test_the_levels_that_several_methods_and_looks_ask_for_hold_with_few_seeds_too(seeds, stds):
    """Where seeds happen to agree their spread is not known the better."""
    rng, repeats = np.random.default_rng(3), 4000
    found = [estimated(draw(rng, [seeds], stds)) for _ in range(repeats)]
    for error in (0.05, 0.05 / 3, 0.05 / 9, 0.05 / 21):
        missed = sum(not low <= 0 <= high for low, high in (one.interval(1 - error) for one in found))
        assert missed <= repeats * error + 3 * math.sqrt(repeats * error)


def test_one_test_set_taken_for_many_misses_the_truth():
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(500):
        shared = draw(rng, [8], (0.0, 0.3, 0.1))[0]
        low, high = estimated([scores[None] for scores in shared]).interval(0.95)
        missed += not low <= 0 <= high
    assert missed > 200


@pytest.mark.parametrize(("seed_std", "floor"), [(0.01, True), (0.05, False)])
def test_one_test_set_gives_the_three_terms_of_the_model(seed_std, floor):
    scores = draw(np.random.default_rng(3), [5], (seed_std, 0.2, 0.3))[0]
    seeds, size = scores.shape
    examples = scores.mean(axis=0)
    residual = scores - scores.mean(axis=1, keepdims=True) - examples + scores.mean()
    of_both = (residual**2).sum() / ((seeds - 1) * (size - 1)) / (seeds * size)
    of_seeds, of_examples = scores.mean(axis=1).var(ddof=1) / seeds, examples.var(ddof=1) / size - of_both

    found = estimated([scores])

    assert (found.of_seeds, found.of_examples) == pytest.approx((of_seeds, of_examples))
    halves = stats.t.ppf(0.99, 4) * of_seeds**0.5, stats.t.ppf(0.99, 4 * 199) * of_both**0.5
    assert (halves[0] < halves[1]) == floor
    half = math.hypot(max(halves), stats.t.ppf(0.99, 199) * of_examples**0.5)
    low, high = found.interval(0.98)
    assert (low, high) == pytest.approx((found.difference - half, found.difference + half))
    assert found.p_value(low) == pytest.approx(0.02)
    assert found.p_value(high + 1e-6) < 0.02 < found.p_value(high - 1e-6)


def test_with_a_test_set_a_seed_the_interval_is_the_paired_t_tests():
    by_example = draw(np.random.default_rng(4), OWN, (0.01, 0.2, 0.3))
    by_seed = np.array([scores.mean() for scores in by_example])
    expected = stats.ttest_1samp(by_seed, 0)

    found = estimated(by_example)

    assert found.p_value() == pytest.approx(expected.pvalue)
    assert found.interval(0.95) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_test_sets_of_different_lengths_weigh_by_their_pairs():
    rng = np.random.default_rng(5)
    found = [
        estimated([*draw(rng, [3], (0, 0.3, 0.1), size=400), *draw(rng, [2], (0, 0.3, 0.1), size=100)])
        for _ in range(3000)
    ]
    exact = (6 * 0.3**2 / 400 + 2 * 0.3**2 / 100) / 20
    assert np.mean([one.of_examples for one in found]) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("sizes", [ROTATED, OWN], ids=str)
def test_seeds_that_agree_by_chance_leave_the_noise_of_single_examples(sizes):
    answers = np.repeat([1.0, 0.0, -1.0], [60, 110, 30])
    rng = np.random.default_rng(6)
    by_example = [np.stack([rng.permutation(answers) for _ in range(count)]) for count in sizes]
    found = estimated(by_example)
    assert found.of_seeds == 0
    half = stats.norm.ppf(0.975) * math.sqrt(answers.var(ddof=1) / answers.size / sum(sizes))
    assert found.interval(0.95)[1] - found.difference == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize(
    ("now", "then"), [([3], [12]), ([1] * 4, [1] * 12), ([2] * 5, [4] * 5), ([2, 1, 1], [4] * 3)], ids=str
)
def test_in_the_mean_the_variance_that_is_foreseen_is_the_one_that_more_seeds_then_have(now, then):
    rng, stds = np.random.default_rng(7), (0.02, 0.3, 0.1)
    foreseen = [variance(estimated(draw(rng, now, stds, 100)).foreseen(sum(then))) for _ in range(1500)]
    later = [variance(estimated(draw(rng, then, stds, 100))) for _ in range(1500)]
    assert np.mean(foreseen) == pytest.approx(np.mean(later), rel=0.06)


@pytest.mark.parametrize("sizes", [ONE, ROTATED, OWN], ids=str)
def test_with_the_seeds_that_there_are_it_is_foreseen_what_is(sizes):
    found = estimated(draw(np.random.default_rng(9), sizes, (0.01, 0.2, 0.3)))
    foreseen = found.foreseen(found.seeds)
    assert (foreseen.of_seeds, foreseen.of_examples) == pytest.approx((found.of_seeds, found.of_examples))
    assert foreseen.interval(0.99) == pytest.approx(found.interval(0.99))


def test_more_seeds_narrow_what_different_test_sets_leave_open_and_not_what_one_does():
    rng = np.random.default_rng(8)
    answers = [rng.choice([-1.0, 0.0, 1.0], 100, p=[0.2, 0.56, 0.24]) for _ in range(8)]
    one = np.tile(answers[0], (8, 1))
    assert estimated([one]).seeds_needed(one.mean() - 0.03, 0.95) is None
    own = [scores[None] for scores in answers]
    needed = estimated(own).seeds_needed(np.mean(answers) - 0.03, 0.95)
    assert 8 < needed < 100
    rotated = [np.stack([scores, scores]) for scores in answers[:5]]
    # All examples of the five sets have been tested: what they leave open stays.
    assert estimated(rotated).seeds_needed(np.mean(answers[:5]) - 0.03, 0.95) is None
    assert estimated(rotated).seeds_needed(np.mean(answers[:5]) - 0.5, 0.95) == 10


def test_results_say_which_seeds_share_their_test_examples():
    results = make_results(("cold", "dash"), seeds=6, test_size=300)
    scores = {key: run.scores.double().numpy() for key, run in results.runs.items()}
    differences = np.stack([scores["dash", seed] - scores["cold", seed] for seed in range(6)])
    ours, theirs = results.finished("dash"), results.finished("cold")
    by_seed = np.array([ours[s][-1].test_accuracy - theirs[s][-1].test_accuracy for s in range(6)])
    assert estimate_difference(results, "dash", "cold") == estimate(by_seed, differences)

    for (_, seed), run in results.runs.items():
        run.test_set = f"fold {seed % 5}"
    found = estimate_difference(results, "dash", "cold")
    assert found == estimate(by_seed, differences[[0, 5]], *(differences[[s]] for s in range(1, 5)))
    assert found.test_sets == 5

    for (method, seed), run in results.runs.items():
        run.test_set = f"{method} {seed}"
    assert estimate_difference(results, "dash", "cold") == estimate(by_seed)  # no example of one is the other's


def test_without_spread_nothing_is_inferred():
    assert estimate(np.full(4, 0.1), np.ones((2, 30)), np.ones((2, 30))).interval() == (-math.inf, math.inf)


def test_a_level_is_never_rounded_to_certainty():
    assert level_text(0.05) == "95 %"
    assert level_text(0.05 / 3) == "98.3 %"
    assert level_text(0.05 / 100) == "99.95 %"
    assert level_text(0.05 / 150) == "99.97 %"


def likely_score(gained, lost, size, difference):
    """The score statistic of a difference of accuracies, where the most likely shares under it are looked for."""
    kept = size - gained - lost

    def unlikely(share):  # of lost
        parts = [(gained, share + difference), (lost, share), (kept, 1 - 2 * share - difference)]
        return -sum(count * math.log(part) for count, part in parts if count)

    bounds = (max(0.0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9)
    found = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12})
    return (gained - lost - size * difference) / math.sqrt(size * (2 * found.x + difference - difference**2))


@pytest.mark.parametrize(("gained", "lost"), [(0, 9), (9, 0), (3, 14), (14, 3), (70, 41)])
@pytest.mark.parametrize("error", [0.05, 0.025])
def test_at_the_ends_of_two_networks_interval_the_score_is_as_large_as_it_may_be(gained, lost, error):
    low, high = two_networks(gained, lost, 200, error)
    most = stats.norm.ppf(1 - error / 2)
    assert likely_score(gained, lost, 200, low) == pytest.approx(most, rel=1e-3)
    assert likely_score(gained, lost, 200, high) == pytest.approx(-most, rel=1e-3)


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (0, 5), (7, 0), (12, 3), (13, 3), (60, 41), (61, 39)])
def test_two_networks_are_told_apart_only_where_mcnemars_exact_test_does(gained, lost):
    low, high = two_networks(gained, lost, 200, 0.05)
    rejected = stats.binomtest(gained, gained + lost).pvalue <= 0.05
    assert (low > 0 or high < 0) is bool(rejected)


def test_two_networks_interval_holds_their_difference():
    random = np.random.default_rng(0)
    for up, down, size in ((0.1, 0.02, 70), (0.03, 0.005, 1000), (0.05, 0.0, 300)):
        drawn = random.multinomial(size, [up, down, 1 - up - down], 1000)
        found = [two_networks(int(gained), int(lost), size, 0.05) for gained, lost, _ in drawn]
        held = np.mean([ends is None or ends[0] <= up - down <= ends[1] for ends in found])
        assert held >= 0.93  # 95 %, less three standard errors of the simulation


def test_where_no_example_tells_two_networks_apart_there_is_no_interval():
    assert two_networks(0, 0, 200, 0.05) is None


def test_at_the_ends_of_a_ratios_interval_a_paired_t_test_is_on_the_edge():
    ours, theirs = np.array([500, 610, 580, 640]), np.array([1000, 1100, 1080, 1200])
    low, high = ratio_interval(ours, theirs, 0.9)

    assert low < ours.sum() / theirs.sum() < high
    for end in (low, high):
        assert stats.ttest_1samp(ours - end * theirs, 0).pvalue == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("ours", "theirs", "ends"),
    [
        ([5, 10], [10, 20], (0.5, 0.5)),  # the same ratio with each seed
        ([5], [10], (0, math.inf)),
        ([5, 9, 1], [10, 1, 900], (0, math.inf)),  # the second mean may be 0
    ],
)
def test_where_a_ratio_has_no_interval_nothing_is_said(ours, theirs, ends):
    assert ratio_interval(np.array(ours), np.array(theirs), 0.95) == pytest.approx(ends)
