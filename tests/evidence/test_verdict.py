import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from made_up import change, drop, make_results
from warmstart.evidence.paired import estimate
from warmstart.evidence.verdict import judge
from warmstart.runs.metric import Metric


def by_method(verdict):
    return {comparison.method: comparison for comparison in verdict.comparisons}


# The statistics


def test_interval_is_the_paired_t_test_where_test_examples_add_nothing():
    rng = np.random.default_rng(0)
    cold, dash = rng.normal(0.94, 0.01, 5), rng.normal(0.96, 0.01, 5)
    expected = stats.ttest_rel(dash, cold)

    found = estimate(dash - cold)

    assert found.p_value() == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.interval(0.95) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_with_identical_seeds_the_interval_is_that_of_the_test_examples():
    # Each seed has the same answers, so that only the choice of examples is left: their t interval.
    answers = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 400, p=[0.1, 0.7, 0.2])
    expected = stats.ttest_1samp(answers, 0)

    found = estimate(np.full(4, answers.mean()), np.tile(answers, (4, 1)))

    assert found.interval(0.95) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_examples_part_is_what_a_bootstrap_over_examples_gives_less_what_the_seeds_already_count():
    rng = np.random.default_rng(1)
    seeds, size = 5, 600
    differences = 0.03 + rng.normal(0, 0.01, (seeds, 1)) + rng.normal(0, 0.3, size) + rng.normal(0, 0.3, (seeds, size))
    resampled = [differences[:, rng.integers(0, size, size)].mean() for _ in range(4000)]
    of_seeds = differences.mean(axis=1).var(ddof=1) / seeds
    both = 0.3**2 / (seeds * size)

    found = estimate(differences.mean(axis=1), differences)

    assert found.of_seeds == pytest.approx(of_seeds)
    assert found.of_seeds + found.of_examples == pytest.approx(of_seeds + np.var(resampled) - both, rel=0.05)


@pytest.mark.parametrize(
    ("seed_std", "example_std", "both_std"), [(0.0, 0.0, 0.3), (0.0, 0.3, 0.2), (0.01, 0.2, 0.2), (0.03, 0.1, 0.1)]
)
def test_95_percent_intervals_hold_the_truth_in_95_percent_of_experiments(seed_std, example_std, both_std):
    rng = np.random.default_rng(2)
    truth, seeds, size, repeats = 0.02, 5, 200, 3000
    held = 0
    for _ in range(repeats):
        noise = rng.normal(0, seed_std, (seeds, 1)) + rng.normal(0, example_std, size)
        differences = truth + noise + rng.normal(0, both_std, (seeds, size))
        low, high = estimate(differences.mean(axis=1), differences).interval(0.95)
        held += low <= truth <= high
    # Three standard errors of the simulation are 0.012. Where seeds differ by single answers alone, what those make is
    # the floor of their part, and more intervals hold.
    assert 0.94 <= held / repeats <= (0.97 if seed_std else 0.985)


def test_leaving_out_the_test_examples_noise_would_not_cover():
    # What the paired t test over seeds alone does: here it holds the truth far too seldom.
    rng = np.random.default_rng(3)
    held = {"seeds": 0, "both": 0}
    for _ in range(1000):
        differences = rng.normal(0, 0.3, 200) + rng.normal(0, 0.1, (5, 200))
        for name, scores in (("seeds", ()), ("both", [differences])):
            low, high = estimate(differences.mean(axis=1), *scores).interval(0.95)
            held[name] += low <= 0 <= high
    assert held["seeds"] < 600
    assert held["both"] > 930


def without_scores(results):
    for run in results.runs.values():
        run.scores = None


def of_last_stage(accuracies, steps=100):
    """A grid of one stage, without scores, from an accuracy for each method and seed; cold first."""
    results = make_results(("cold", "a", "b", "c")[: len(accuracies)], seeds=accuracies.shape[1], stages=1)
    without_scores(results)
    for method, row in zip(results.methods, accuracies, strict=True):
        for seed, accuracy in enumerate(row):
            change(results, method, seed=seed, test_accuracy=accuracy, steps=steps)
    return results


def test_each_of_several_intervals_is_wider_so_that_all_hold_together():
    accuracies = np.random.default_rng(5).normal([[0.9], [0.91], [0.9], [0.89]], 0.01, (4, 5))
    verdict = judge(of_last_stage(accuracies), margin=0.02)
    assert verdict.level_of_each == pytest.approx(1 - 0.05 / 3)
    for comparison, row in zip(verdict.comparisons, accuracies[1:], strict=True):
        one = stats.ttest_rel(row, accuracies[0])
        low, high = one.confidence_interval(1 - 0.05 / 3)
        assert (comparison.low, comparison.high) == pytest.approx((low, high))
        assert comparison.p_value == pytest.approx(
            min(1, 3 * stats.ttest_rel(row, accuracies[0] - 0.02).pvalue), rel=1e-9
        )
        assert (low <= -0.02 <= high) == (comparison.p_value > 0.05)


@pytest.mark.parametrize("losses", [(0, 0, 0), (0.02, 0.02, 0.02), (0, 0.1, 0.1)], ids=str)
def test_any_false_claim_is_made_in_at_most_5_percent_whatever_the_margin(losses):
    """Where two are plainly worse, the third is not judged the more leniently for it."""
    rng = np.random.default_rng(4)
    repeats, false, margin = 1000, 0, 0.02
    for _ in range(repeats):
        accuracies = 0.9 - np.array([[0], *([loss] for loss in losses)]) + rng.normal(0, 0.01, (4, 6))
        verdict = judge(of_last_stage(accuracies), margin=margin)
        for comparison, loss in zip(verdict.comparisons, losses, strict=True):
            true = {"better": loss < 0, "worse": loss > margin, "no worse": loss < margin, "unclear": True}
            if not true[comparison.decision]:
                false += 1
                break
    assert false / repeats <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)


def test_one_seed_or_no_spread_bounds_nothing():
    assert estimate(np.array([0.1])).interval() == (-math.inf, math.inf)
    assert estimate(np.array([0.1, 0.1, 0.1])).interval() == (-math.inf, math.inf)
    assert estimate(np.array([0.1, 0.1, 0.1])).p_value() == 1


def test_seeds_that_agree_by_chance_leave_the_noise_of_single_examples():
    rows = np.array([[1, 0, 0, 0, -1, 0, 1, 0], [0, 1, 0, 0, 0, -1, 0, 1], [0, 0, 1, -1, 0, 0, 0, 1]], dtype=float)
    found = estimate(rows.mean(axis=1), rows)
    assert rows.mean(axis=1).std() == 0
    assert found.interval()[1] > found.difference + math.sqrt(rows.var() / rows.size)


def test_seeds_that_nearly_agree_know_no_more_than_their_answers():
    answers = np.repeat([1.0, 0.0, -1.0], [60, 110, 30])
    nearly = np.where(np.arange(200) == 70, 1.0, answers)  # one more is right
    rng = np.random.default_rng(6)
    scores = np.stack([rng.permutation(row) for row in (answers, answers, nearly)])
    found = estimate(scores.mean(axis=1), scores)
    of_answers = 2 * math.sqrt(answers.var(ddof=1) / scores.size)
    assert found.interval()[1] - found.difference == pytest.approx(of_answers, rel=0.1)
    assert found.interval()[1] - found.difference > 2 * stats.t.ppf(0.975, 2) * math.sqrt(found.of_seeds)


# The verdict


def test_recommends_the_cheapest_method_that_loses_nothing():
    verdict = judge(make_results())
    found = by_method(verdict)

    assert verdict.recommended == "dash"
    assert [found[name].decision for name in ("warm", "shrink-perturb", "dash")] == ["worse", "better", "better"]
    assert found["dash"].steps_ratio == pytest.approx(61 / 304, rel=0.1)
    assert verdict.sentence == (
        f"Use dash: its last accuracy is {100 * found['dash'].difference:.1f} points above cold's (95 % interval "
        f"{100 * found['dash'].low:.1f} to {100 * found['dash'].high:.1f}, 5 seeds) at "
        f"{found['dash'].total_steps_ratio:.2f}x of cold's steps."
    )
    assert verdict.notes == ()


def test_ratios_and_differences_are_those_of_the_rows():
    results = make_results(("cold", "dash"), seeds=3, stages=2)
    for method, last, steps in (("cold", 0.90, 100), ("dash", 0.95, 30)):
        change(results, method, stage=2, test_accuracy=last, steps=steps)
        change(results, method, stage=1, steps=20)
    comparison = judge(results).comparisons[0]
    assert comparison.difference == pytest.approx(0.05)
    assert comparison.steps_ratio == pytest.approx(0.3)
    assert comparison.total_steps_ratio == pytest.approx(50 / 120)


def test_inconclusive_says_what_remains_possible_and_keeps_cold():
    verdict = judge(make_results(("cold", "dash"), test_size=300, levels={"dash": (0.943, 60)}, stages=2))
    comparison = verdict.comparisons[0]
    low, high = 100 * comparison.low, 100 * comparison.high
    assert comparison.decision == "unclear"
    assert verdict.recommended == "cold"
    assert verdict.sentence.startswith("Stay with cold for now: dash at ")
    assert f"no difference that 5 seeds can show (95 % interval {low:.1f} to +{high:.1f} points). " in verdict.sentence
    assert comparison.admitting_margin == -comparison.low
    margin = f"a margin of {-low:.1f} points would admit it."
    assert f"{comparison.seeds_needed} seeds would decide about every other time; {margin}" in verdict.sentence
    assert comparison.seeds_needed > 5
    assert (
        judge(
            make_results(("cold", "dash"), test_size=300, levels={"dash": (0.943, 60)}, stages=2),
            margin=comparison.admitting_margin * 1.001,
        ).recommended
        == "dash"
    )


def test_the_seeds_that_are_needed_decide_where_they_go_on_as_before():
    rng = np.random.default_rng(3)
    by_seed = rng.normal(0.01, 0.02, 6)
    found = estimate(by_seed)
    needed = found.seeds_needed(0.0, 0.95)

    def with_seeds(count):
        wanted = rng.normal(0, 1, count)
        wanted = (wanted - wanted.mean()) / wanted.std(ddof=1)
        return estimate(by_seed.mean() + by_seed.std(ddof=1) * wanted).interval(0.95)[0]

    assert needed > 6
    assert with_seeds(needed) > 0 >= with_seeds(needed - 1)


def test_no_number_of_seeds_decides_what_the_test_examples_leave_open():
    rng = np.random.default_rng(4)
    scores = np.tile(rng.choice([-1.0, 0.0, 1.0], 100, p=[0.2, 0.59, 0.21]), (5, 1))
    found = estimate(scores.mean(axis=1), scores)
    assert found.seeds_needed(0.0, 0.95) is None
    assert found.seeds_needed(-0.5, 0.95) == 5


def test_margin_admits_a_small_loss_and_says_so():
    results = make_results(levels={"dash": (0.94, 61)})
    assert judge(results).recommended != "dash"
    verdict = judge(results, margin=0.02)
    assert verdict.recommended == "dash"
    assert "; a loss beyond the margin of 2.0 points is excluded)" in verdict.sentence
    with pytest.raises(ValueError, match=r"margin -0\.1"):
        judge(results, margin=-0.1)
    with pytest.raises(ValueError, match="margin nan"):
        judge(results, margin=math.nan)


def test_methods_that_lose_are_not_recommended_however_cheap():
    verdict = judge(make_results(("cold", "warm")))
    assert verdict.recommended == "cold"
    assert verdict.sentence.startswith("Use cold: every method that takes fewer steps loses accuracy, warm the least")


@pytest.mark.parametrize("steps", [100, 0], ids=["equal", "not counted"])
def test_a_method_that_is_no_worse_in_as_many_steps_is_not_said_to_lose(steps):
    results = make_results(("cold", "warm", "dash"), levels={"warm": (0.8, 60), "dash": (0.945, 60)})
    for method in results.methods:
        change(results, method, steps=steps)
    verdict = judge(results, margin=0.02)
    assert {m: c.decision for m, c in by_method(verdict).items()} == {"warm": "worse", "dash": "no worse"}
    assert by_method(verdict)["dash"].difference < 0
    assert (verdict.recommended, verdict.decided) == ("cold", True)
    assert verdict.sentence == (
        "Use cold: no other method is shown to save steps without a loss, or to have a better accuracy."
    )


@pytest.mark.parametrize(("better", "recommended"), [(0.004, "cold"), (0.03, "dash")])
def test_in_as_many_steps_a_better_mean_is_no_reason_and_a_better_accuracy_is(better, recommended):
    rng = np.random.default_rng(0)
    accuracies = 0.9 + np.array([[0], [better]]) + rng.normal(0, 0.003, (2, 8))
    results = of_last_stage(accuracies)
    verdict = judge(results, margin=0.01)
    assert verdict.comparisons[0].difference > 0
    assert verdict.comparisons[0].decision == ("better" if better > 0.01 else "no worse")
    assert verdict.recommended == {"dash": "a"}.get(recommended, recommended)


@pytest.mark.parametrize(("steps", "saves"), [((90, 96, 95, 93), True), ((90, 112, 85, 105), False), ([97] * 4, True)])
def test_steps_are_saved_where_their_ratio_is_shown_to_be_below_one(steps, saves):
    accuracies = 0.9 + np.random.default_rng(0).normal(0, 0.001, (2, 4))
    results = of_last_stage(accuracies)
    for seed, count in enumerate(steps):
        change(results, "a", seed=seed, steps=count)
    verdict = judge(results, margin=0.01)
    comparison = verdict.comparisons[0]
    assert comparison.total_steps_ratio < 1
    assert (comparison.saves_steps, comparison.decision) == (saves, "no worse")
    assert (verdict.recommended, verdict.decided) == (("a", True) if saves else ("cold", False))
    if not saves:
        assert verdict.sentence == (
            "Stay with cold for now: a loses no accuracy beyond the margin, but 4 seeds do not show that it saves "
            "steps (0.98x of cold's)."
        )


def test_where_no_steps_are_saved_every_method_that_loses_is_said_to():
    results = make_results(("cold", "warm"), levels={"warm": (0.8, 60)})
    for method in results.methods:
        change(results, method, steps=100)
    assert judge(results).sentence.startswith(
        "Use cold: every method that takes no more steps loses accuracy, warm the"
    )


def test_a_better_method_that_costs_more_is_named_but_not_recommended():
    verdict = judge(make_results(("cold", "dash"), levels={"dash": (0.975, 400)}))
    assert verdict.recommended == "cold"
    assert verdict.notes[0].startswith("Where accuracy counts more than steps, use dash: its last accuracy is")


def test_of_better_methods_that_cost_more_the_cheapest_and_the_best_are_named():
    levels = {"fire": (0.90, 150), "dash": (0.94, 400), "redo": (0.92, 500), "hard": (0.96, 600), "best": (0.98, 700)}
    verdict = judge(make_results(("cold", *levels), levels={"cold": (0.85, 300), **levels}))
    assert verdict.recommended == "fire"
    (note,) = (note for note in verdict.notes if note.startswith("Where accuracy counts"))
    assert note.count("its last accuracy is") == 2
    assert "use dash: its last accuracy is" in note
    assert "; or best: its last accuracy is" in note


@pytest.mark.parametrize(("seeds", "more"), [(1, "2 more seeds"), (2, "1 more seed.")])
def test_under_three_seeds_no_claim_is_made(seeds, more):
    verdict = judge(make_results(seeds=seeds))
    assert verdict.recommended is None
    assert verdict.sentence.startswith(f"No claim: {seeds} seed")
    assert more in verdict.sentence
    assert all(c.decision == "too few seeds" and c.low == -math.inf for c in verdict.comparisons)


def test_without_cold_or_without_rivals_no_claim_is_made():
    assert judge(make_results(("warm", "dash"))).sentence == (
        "No claim: there is no cold in the grid to compare with; add it to the methods."
    )
    assert judge(make_results(("cold",))).sentence.startswith("No claim: cold is the only method")
    assert judge(make_results(("warm", "dash")), reference="warm").recommended == "dash"


def test_a_method_that_diverged_once_is_not_recommended():
    results = make_results()
    change(results, "dash", seed=2, stage=6, status="diverged", test_accuracy=math.nan)
    verdict = judge(results)
    assert by_method(verdict)["dash"].decision == "diverged"
    assert verdict.recommended == "shrink-perturb"
    assert any(note.startswith("dash diverged in 1 of 5 seeds") for note in verdict.notes)


def test_no_claim_where_cold_itself_diverged():
    results = make_results()
    change(results, "cold", seed=0, stage=2, status="diverged")
    verdict = judge(results)
    assert verdict.recommended is None
    assert "cold itself diverged in 1 of 5 seeds" in verdict.sentence


def test_partial_grid_counts_finished_pairs_only_and_says_how_far_it_is():
    results = make_results()
    drop(results, "dash", seed=4, after=3)
    drop(results, "warm", seed=4)
    verdict = judge(results)
    assert verdict.sentence.startswith("So far (18 of 20 runs): use dash")
    assert by_method(verdict)["dash"].seeds == 4
    assert "dash: 1 of 5 seeds not finished; they are in no mean." in verdict.notes


def test_no_rows_yet_is_no_claim():
    results = make_results()
    results.runs.clear()
    verdict = judge(results)
    assert verdict.sentence == (
        "No claim: 0 seeds finished, and it takes 3 to tell methods apart; let the comparison finish."
    )
    assert len(verdict.notes) == 4


def test_missing_scores_are_admitted():
    results = make_results()
    without_scores(results)
    verdict = judge(results)
    assert verdict.recommended == "dash"
    assert verdict.notes == (
        "The intervals allow for the seeds but not for the choice of test examples: per-example scores are missing, or "
        "not of the same examples.",
    )


def test_scores_on_other_examples_are_as_good_as_missing_and_it_is_said():
    results = make_results()
    for seed in results.seeds:
        results.runs["dash", seed].test_set = "another"
    assert judge(results).notes[-1].startswith("The intervals of dash allow for the seeds but not for the choice")


def test_runs_that_do_not_depend_on_the_seed_prove_nothing():
    results = make_results(("cold", "dash"))
    without_scores(results)
    change(results, "cold", test_accuracy=0.90)
    change(results, "dash", test_accuracy=0.95)
    verdict = judge(results)
    assert verdict.recommended == "cold"
    assert "do the runs depend on the seed?" in verdict.sentence


def test_any_metric_and_lower_is_better():
    results = make_results(("cold", "warm", "dash"), levels={"warm": (0.975, 80), "dash": (0.90, 60)})
    results = replace(results, metric=Metric("perplexity", higher_is_better=False))
    verdict = judge(results)
    assert verdict.recommended == "dash"
    assert "its last perplexity is 0.0" in verdict.sentence
    assert "below cold's" in verdict.sentence
    assert "points" not in verdict.sentence
    assert by_method(verdict)["warm"].decision == "worse"


def test_where_steps_are_not_counted_the_metric_decides():
    results = make_results(("cold", "shrink-perturb", "dash"))
    for method in results.methods:
        change(results, method, steps=0)
    verdict = judge(results)
    assert verdict.recommended == "dash"
    assert "steps" not in verdict.sentence


def test_a_stopping_rule_that_never_held_is_noted():
    results = make_results()
    change(results, "cold", stage=6, status="max-epochs")
    assert judge(results).notes == (
        "cold: in 5 of 30 stages the stopping rule never held; the steps there are the limit of epochs, "
        "not what it needs.",
    )


def test_among_methods_of_equal_cost_the_best_of_those_that_are_unclear_is_named():
    results = make_results(["cold", "alike", "better"], seeds=3, stages=2)
    without_scores(results)
    for seed, luck in enumerate((-0.1, 0.0, 0.1)):
        for method, level in (("cold", 0.5), ("alike", 0.5 + luck), ("better", 0.6 + luck)):
            change(results, method, seed=seed, test_accuracy=level, steps=100)

    verdict = judge(results)

    assert [comparison.decision for comparison in verdict.comparisons] == ["unclear", "unclear"]
    assert verdict.sentence.startswith("Stay with cold for now: better at 1.00x of its steps")
