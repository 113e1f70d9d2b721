import csv
import io
import math

import pytest

from made_up import change, drop, make_results
from warmstart.evidence.tuning import Trial, Tuned, Tuning, trials_csv, tuning_blocks


def trial(label, accuracy=0.9, steps=100, status="done"):
    return Trial(label, status, accuracy, steps)


def test_the_best_on_the_validation_part_is_chosen_and_the_cheapest_among_equals():
    tuned = Tuned("dash", (trial("dash", 0.90), trial("b", 0.95, 200), trial("c", 0.95, 100), trial("d", 0.95, 300)))

    assert tuned.chosen.label == "c"


@pytest.mark.parametrize("status", ["diverged", "max-epochs"])
def test_a_failed_trial_is_never_chosen_however_good(status):
    tuned = Tuned("dash", (trial("dash", 0.5), trial("b", 0.99, status=status), trial("c", math.nan)))

    assert tuned.chosen.label == "dash"
    assert tuned.failures == 2


def test_where_all_trials_failed_the_method_stays_as_it_was_given_and_that_is_said():
    tuned = Tuned("dash", (trial("dash", status="max-epochs"), trial("b", 0.99, status="diverged")))

    assert tuned.chosen.label == "dash"
    assert "dash: all trials failed, so it is as it was given." in Tuning((tuned,), "10 examples", 1e-3).notes


def test_a_trial_is_read_from_its_runs_rows():
    results = make_results(["a", "b"], seeds=1, stages=3)
    rows = results.rows
    change(results, "b", stage=2, status="max-epochs")

    fine, late = Trial.of(results, "a"), Trial.of(results, "b")

    assert (fine.status, fine.accuracy) == ("done", rows[2].test_accuracy)
    assert fine.steps == sum(row.steps for row in rows[:3])
    assert (late.status, late.failed) == ("max-epochs", True)
    drop(results, "a", seed=0, after=1)
    change(results, "a", status="diverged")
    broken = Trial.of(results, "a")
    assert (broken.failed, math.isnan(broken.accuracy)) == (True, True)


def test_the_gain_is_the_chosen_settings_over_the_given_ones_on_the_test_set():
    given, chosen = "dash", "dash[lr=0.01]"
    tested = make_results(["cold", given, chosen], seeds=5, levels={given: (0.90, 60), chosen: (0.95, 60)})
    tuning = Tuning(
        (
            Tuned("cold", (trial("cold"), trial("cold[lr=0.01]", 0.8))),
            Tuned("dash", (trial(given), trial(chosen, 0.96))),
        ),
        "100 examples held out of the training data",
        1e-3,
        tested,
    )
    last = {name: [row.test_accuracy for row in tested.select(name, stage=6)] for name in (given, chosen)}
    expected = sum(last[chosen]) / 5 - sum(last[given]) / 5

    assert tuning.chosen == {"cold": "cold", "dash": chosen}
    assert tuning.gain(tuning.tuned[0]) is None
    assert tuning.gain(tuning.tuned[1]).difference == pytest.approx(expected)
    page = "".join(tuning_blocks(tuning))
    assert f"{100 * expected:+.1f}" in page
    assert "<svg" in page


def test_the_list_of_trials_has_a_line_each_and_marks_the_chosen():
    tuned = Tuned("dash", (trial("dash", 0.90), trial("dash[alpha=0.1,lr=0.01]", 0.95), trial("c", status="diverged")))

    rows = list(csv.DictReader(io.StringIO(trials_csv(Tuning((tuned,), "10 examples", 1e-3)))))

    assert [row["chosen"] for row in rows] == ["no", "yes", "no"]
    assert [row["trial"] for row in rows] == ["1", "2", "3"]
    assert rows[1]["settings"] == "dash[alpha=0.1,lr=0.01]"
