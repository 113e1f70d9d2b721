import pytest

from warmstart.grids.time_left import TimeLeft
from warmstart.runs.key import RunKey
from warmstart.runs.stage_result import StageResult

COST = {"cold": 4.0, "warm": 0.7, "shrink-perturb": 1.5, "dash": 1.0}
STAGES = 6


def row(method, seed, stage, seconds, status="done"):
    return StageResult("d", "m", "sgd", method, seed, stage, 10, 0.5, 1.0, 1.0, 5, 1, seconds, 0.0, status=status)


def carried_out(seeds, jobs):
    """Seconds at which each stage ends, of runs that start in order as soon as a process is free."""
    free, ends = [0.0] * jobs, []
    for seed in range(seeds):
        for method, cost in COST.items():
            worker = free.index(min(free))
            for stage in range(1, STAGES + 1):
                begun = free[worker]
                free[worker] += cost * stage * 1.1  # a tenth of the time is not training
                ends.append((free[worker], begun, row(method, seed, stage, cost * stage)))
    return sorted(ends, key=lambda one: one[0])


def test_runs_that_are_added_take_their_time():
    keys = [RunKey("warm", seed, "sgd") for seed in range(2)]
    left = TimeLeft(keys[:1], 1)
    left.count(row("warm", 0, 1, 10.0))
    assert left.seconds(10.0, {}) == 0
    left.add(keys[1:])
    assert left.seconds(10.0, {}) == pytest.approx(10.0)


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_after_a_tenth_of_the_time_the_estimate_is_within_a_factor_of_two(seeds, jobs):
    ends = carried_out(seeds, jobs)
    total = ends[-1][0]
    left = TimeLeft([RunKey(method, seed, "sgd") for seed in range(seeds) for method in COST], STAGES)
    assert left.seconds(1.0, {}) is None

    for elapsed, _, one in ends:
        left.count(one)
        under_way = {
            RunKey(row.method, row.seed, "sgd"): (elapsed - begun) / 1.1
            for end, begun, row in ends
            if begun <= elapsed < end
        }
        if 0.1 * total <= elapsed < 0.9 * total:
            estimate = left.seconds(elapsed, under_way)
            assert (total - elapsed) / 2 <= estimate <= (total - elapsed) * 2, f"{elapsed / total:.0%}"
    assert left.seconds(total, {}) == 0


def test_an_earlier_starts_pace_holds_until_a_stage_is_done():
    left = TimeLeft([RunKey("cold", seed, "sgd") for seed in range(2)], 2)
    for stage in (1, 2):
        left.count(row("cold", 0, stage, 10.0 * stage), now=False)
    assert left.seconds(1.0, {}) == pytest.approx(30.0)
    left.count(row("cold", 1, 1, 10.0))
    assert left.seconds(12.0, {}) == pytest.approx(24.0)


def test_a_run_that_diverged_has_nothing_left():
    left = TimeLeft([RunKey("cold", 0, "sgd")], 5)
    left.count(row("cold", 0, 1, 10.0, "diverged"))
    assert left.seconds(10.0, {}) == 0
