from made_up import make_results
from warmstart.evidence.verdict import judge


def test_what_a_method_warned_of_is_said_once_with_the_verdict():
    results = make_results(seeds=3)
    for seed in range(3):
        for stage in (2, 3):
            warning = f"the raised rate is {1 + seed}.{stage}, at which training usually diverges"
            results.runs["warm", seed].reports[stage] = {"warnings": [warning]}
    results.runs["warm", 0].reports[4] = {"warnings": ["something else."], "notes": ["no warning"]}

    notes = [note for note in judge(results).notes if "warned" in note]

    assert notes == [
        "warm warned in 6 stages: the raised rate is 1.2, at which training usually diverges.",
        "warm warned in 1 stage: something else.",
    ]
