"""What a grid has measured: parts of it are still whole runs."""

from made_up import PAPER, make_results


def test_the_first_seeds_alone_and_other_names_take_all_of_a_run_along():
    results = make_results(PAPER, seeds=4, stages=3)
    for run in results.runs.values():
        run.diagnoses[1] = [("weight-norm", "", 1.0)]

    first = results.of_first(2)
    assert (first.methods, list(first.seeds)) == (results.methods, [0, 1])
    assert first.runs == {key: run for key, run in results.runs.items() if key[1] < 2}
    assert first.are_over(2)
    assert not first.are_over(3)

    renamed = results.under({"mine": "dash"})
    assert list(renamed.runs) == [("mine", seed) for seed in range(4)]
    assert {row.method for row in renamed.rows} == {"mine"}
    assert renamed.runs["mine", 3].scores is results.runs["dash", 3].scores
    assert renamed.runs["mine", 3].diagnoses == results.runs["dash", 3].diagnoses
    assert {row.method for row in results.select("dash")} == {"dash"}
