"""`warmstart compare --max-seeds`: seeds are added from look to look, whatever happens in between."""

import sys
from dataclasses import replace

import pytest

from commands import SMALL, numbers, rows, start, wait_until, warmstart
from warmstart.comparison import looks
from warmstart.grids import local_processes

GRID = [*SMALL, "--methods", "cold,warm", "--seeds", 3, "--max-seeds", 7, "--margin", 0, "--jobs", 1]
"""Its looks are at 3, 6 and 7 seeds."""
ACCURACIES = {"cold": (0.90, 0.92, 0.89, 0.90, 0.92, 0.88, 0.90), "warm": (0.91, 0.90, 0.90, 0.89, 0.92, 0.89, 0.89)}
"""By seed: no look decides between these, in as many steps."""


@pytest.fixture(scope="module", autouse=True)
def _judged_by_these():
    """Looks see these accuracies, whatever the runs came to, which differs from processor to processor."""
    plain = looks.collect

    def collect(*given):
        results = plain(*given)

        def told(row):
            return replace(row, test_accuracy=ACCURACIES[row.method][row.seed], steps=10)

        runs = {key: replace(run, rows=[*map(told, run.rows)], scores=None) for key, run in results.runs.items()}
        return replace(results, runs=runs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(looks, "collect", collect)
        yield


def seeds_of(out):
    return sorted({int(row["seed"]) for row in rows(out)})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A comparison from start to end, which no look decides."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert warmstart("compare", *GRID, "--out", out) == 0
    return out


def verdict_of(out):
    return (out / "table.md").read_text()


def test_seeds_are_added_to_the_most_where_nothing_decides(undisturbed, capfd):
    assert seeds_of(undisturbed) == list(range(7))
    assert "Stay with cold for now" in verdict_of(undisturbed)
    assert "no difference that 7 seeds can show (97.8 % interval" in verdict_of(undisturbed)
    assert "Look 3 of 3, 7 seeds: not decided, and no seeds are added." in verdict_of(undisturbed)
    config = (undisturbed / "config.yaml").read_text()
    assert "seeds: 3\n" in config
    assert "max_seeds: 7\n" in config

    before = numbers(undisturbed)
    assert warmstart("compare", *GRID, "--out", undisturbed) == 0
    assert "going on: 14 of 14 runs are done" in capfd.readouterr().err
    assert numbers(undisturbed) == before


def test_each_look_is_a_line_and_the_totals_follow(tmp_path, capfd):
    assert warmstart("compare", *GRID, "--max-seeds", 4, "--out", tmp_path) == 0
    lines = capfd.readouterr().err.splitlines()

    assert "small-cnn, sgd; 2 methods x 3 to 4 seeds" in lines
    (first,) = [line for line in lines if line.startswith("look 1 of 2")]
    assert first == "look 1 of 2, 3 seeds, 97.9 % intervals: warm unclear; not decided; seed 3 comes next"
    after = lines[lines.index(first) + 1 :]
    assert [line.split()[0] for line in after] == ["[7/8]", "[8/8]", "look"]
    assert after[-1].endswith("; not decided, and no seeds are added")


@pytest.mark.parametrize("at", [("warm", 2), ("cold", 3), ("warm", 4), ("cold", 6)], ids=str)
def test_interrupted_at_any_look_it_ends_as_if_it_had_not_been(undisturbed, tmp_path, monkeypatch, capfd, at):
    plain = local_processes._run

    def interrupted(task, key, folder, on_event):
        if (key.method, key.seed) == at:
            raise KeyboardInterrupt
        return plain(task, key, folder, on_event)

    monkeypatch.setattr(local_processes, "_run", interrupted)
    assert warmstart("compare", *GRID, "--out", tmp_path) == 130
    monkeypatch.undo()
    capfd.readouterr()
    seen = max((seeds for seeds in (3, 6) if seeds <= at[1]), default=0)

    # Meanwhile the report is that of the last look that is complete.
    assert warmstart("report", tmp_path) == 0
    if seen:
        assert f"Look {[3, 6].index(seen) + 1} of 3, {seen} seeds: not decided; seed" in verdict_of(tmp_path)
        assert f"over {seen} seeds; last: stage 2" in verdict_of(tmp_path)
    else:
        assert "So far (5 of 6 runs)" in verdict_of(tmp_path) or "No claim: 2 seeds" in verdict_of(tmp_path)
        assert "The first look is at 3 seeds, the last at 7. " in verdict_of(tmp_path)

    assert warmstart("compare", *GRID, "--out", tmp_path) == 0
    assert numbers(tmp_path) == numbers(undisturbed)
    assert verdict_of(tmp_path) == verdict_of(undisturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_killed_inside_the_second_look_two_processes_go_on_from_there(undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start("compare", *GRID, "--out", out)
    wait_until(lambda: list(out.glob("runs/*seed3/checkpoint.safetensors")) or process.poll() is not None)
    process.kill()
    process.communicate()

    assert warmstart("compare", *GRID, "--jobs", 2, "--out", out) == 0
    assert numbers(out) == numbers(undisturbed)
    assert verdict_of(out) == verdict_of(undisturbed)


def test_a_look_that_decides_adds_none_and_another_margin_only_reads_it_anew(tmp_path, capfd):
    # In as many steps, and not 90 points worse: there is no reason for it, whatever the seeds.
    loose = [*GRID, "--margin", 0.9, "--until", 1, "--max-epochs", 2, "--out", tmp_path]
    for _ in range(2):
        assert warmstart("compare", *loose) == 0
        assert "look 1 of 3, 3 seeds, 99.1 % intervals: warm no worse; decided" in " ".join(
            capfd.readouterr().err.split()
        )
        assert seeds_of(tmp_path) == [0, 1, 2]
        assert "Use cold: no other method is shown to save steps" in verdict_of(tmp_path)

    assert warmstart("report", tmp_path, "--margin", 0) == 0
    assert "not decided; seeds 3 to 5 come next" in verdict_of(tmp_path)
    assert seeds_of(tmp_path) == [0, 1, 2]


def test_the_most_may_be_raised_and_the_error_is_then_split_anew(tmp_path):
    assert warmstart("compare", *GRID, "--max-seeds", 3, "--out", tmp_path) == 0
    assert "(95 % interval" in verdict_of(tmp_path)
    assert warmstart("compare", *GRID, "--max-seeds", 4, "--out", tmp_path) == 0
    assert "(97.1 % interval" in verdict_of(tmp_path)
    assert seeds_of(tmp_path) == [0, 1, 2, 3]
