"""What a comparison will cost, for a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from warmstart.comparison.looks import wanted_runs
from warmstart.comparison.settings import TUNING_SEED, CompareSettings
from warmstart.grids.carry_out import jobs_for, unfinished
from warmstart.grids.estimate import Cost, Estimator, in_all, measured_epochs
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.rehearsal import rehearse
from warmstart.runs.state import RunState
from warmstart.wording import counted

TRIED_SECONDS = 5.0
"""The first stage is trained for so long at most."""


def estimate(
    task: ImageTask, settings: CompareSettings, done: Mapping[RunKey, RunState], trials: Mapping[str, int]
) -> tuple[list[Cost], list[str]]:
    """Measure a few steps, and try how many epochs the first stage takes.

    Args:
        task: What is trained.
        settings: The comparison's.
        done: Its runs of earlier starts.
        trials: How many trials of each method tuning still has before it.

    Returns:
        A row for each method, and lines on the total and how it was estimated.

    Raises:
        InputError: If the runs do not fit into the GPU's memory.
    """
    threads, optimizer = int(settings.threads), settings.optimizer
    wanted, to_tune = wanted_runs(settings, done), any(trials.values())
    tuning = [RunKey(method, TUNING_SEED, optimizer) for method, count in trials.items() for _ in range(count)]

    def left_of(runs: Sequence[RunKey]) -> list[RunKey]:
        left = unfinished(runs, done, task.stages)
        return [*tuning, *left, *(left if to_tune else ())]  # as chosen, and as given

    left, most = left_of(wanted.runs), left_of(settings.runs())
    if not left:
        return [], ["estimate: nothing is left to do"]
    rehearse(task, left)
    epochs, ended = measured_epochs(task, left[0], TRIED_SECONDS)
    jobs = jobs_for(settings, threads, len(left))
    estimator = Estimator(task, settings.optimizer_names, threads, lambda key: epochs)
    estimator.check_memory(jobs)
    how = f"as many epochs a stage as {left[0].method} took in the first, {epochs:.0f} (measured)"
    if settings.epochs is not None:
        how = f"{epochs:.0f} epochs a stage"
    elif not ended:
        how = f"at least {epochs:.0f} epochs a stage: the first one had not ended after {TRIED_SECONDS:.0f} s"
    costs, at_most = estimator.costs(left, done), ""
    if len(most) > len(left):
        all_of_them = in_all(estimator.costs(most, done), jobs, least=not ended)
        at_most = f"  at most, with {settings.max_seeds} seeds: {all_of_them}"
    until = f" to the look at {len(wanted.runs) // len(settings.arms)} seeds" if len(settings.looks) > 1 else ""
    parts = f"  {counted(len(tuning), 'trial')}, then each method as chosen and as given" if to_tune else ""
    step = 1000 * estimator.seconds_a_step[optimizer]
    lines = [
        f"estimate{until}: {in_all(costs, jobs, least=not ended)}",
        parts,
        at_most,
        f"  a step takes {step:.1f} ms (measured); {how}",
        f"  memory: about {estimator.peak_memory / 2**30:.1f} GiB a run",
    ]
    return costs, [line for line in lines if line]
