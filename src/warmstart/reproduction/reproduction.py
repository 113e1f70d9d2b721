"""Carrying a reproduction out: data, estimate, the grid, the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from warmstart.data.checksums import verify_official
from warmstart.data.paper_data import find_original, load_paper_data, shortfall
from warmstart.errors import InputError
from warmstart.grids.carry_out import Plan, carry_out, grid_of, jobs_for
from warmstart.grids.display import Display
from warmstart.grids.record import CONFIG_FILE, check_output, read_recorded, record, with_recorded_threads
from warmstart.reproduction.estimate import Cost, Estimator, duration
from warmstart.reproduction.manifest import session
from warmstart.reproduction.report import Tables, write_report
from warmstart.reproduction.settings import ReproduceConfig
from warmstart.runs.image_task import ImageTask
from warmstart.runs.run import RunKey, Saved, read_results, saved_runs, unfinished
from warmstart.training.parallel import launched_processes
from warmstart.wording import counted


class Reproduction:
    """One of the paper's tables, or as much of it as was asked for."""

    def __init__(self, config: ReproduceConfig, display: Display, *, verify: bool = True) -> None:
        """Read the data and find what is wrong, before any work is done.

        Args:
            config: The settings.
            display: Shows what is done.
            verify: Check the checksums of files that go by an official name.

        Raises:
            InputError: If the data cannot be read, or something does not fit together.
        """
        self._out = Path(config.out)
        self._display, self._verify = display, verify
        self._config = with_recorded_threads(config, self._out)
        path = Path(config.data) if config.data is not None else None
        if path is not None and verify:
            verify_official(find_original(config.dataset, path))
        images = load_paper_data(config.dataset, path, progress=display.loading)
        protocol = config.settled()
        self.task = ImageTask(protocol, images)
        self.task.check(config.optimizers, config.seeds)
        lacking = shortfall(config.dataset, images)
        self.recorded = {
            **record(self._config, images.fingerprint()),
            "stages": protocol.stages,
            "stage_size": protocol.stage_size,
            "batch_size": protocol.recipe.batch_size,
            "max_epochs": protocol.recipe.max_epochs,
            "settled": to_jsonable_python(protocol, exclude={"device"}),
            "notes": [f"the data lacks some: {lacking}"] if lacking else [],
        }
        self.lines = plan_lines(self._config, self.task, self.recorded["notes"])
        if self._out.exists():
            check_output(self._out, self.recorded)

    def estimate(self) -> tuple[list[Cost], list[str]]:
        """Measure a few steps and reckon what is left to do.

        Returns:
            A row for each optimizer and method, and what the figures rest on, in lines.

        Raises:
            InputError: If the runs do not fit into the GPU's memory.
        """
        keys = grid_of(self.recorded)
        done = saved_runs(keys, self._out)
        left = unfinished(keys, done, self.task.stages)
        if not left:
            return [], ["estimate: nothing is left to do"]
        jobs = 1 if self._config.executor == "ray" else jobs_for(self._config, int(self.recorded["threads"]), len(left))
        estimator = Estimator(self.task, self._config.dataset, self._config.optimizers, int(self.recorded["threads"]))
        estimator.check_memory(jobs)
        costs = estimator.costs([(key, len(done[key]["rows"]) if key in done else 0) for key in left])
        seconds, steps = sum(cost.seconds for cost in costs), sum(cost.steps for cost in costs)
        each = ", ".join(f"{1000 * taken:.1f} ms with {name}" for name, taken in estimator.seconds_a_step.items())
        at_a_time = f", {jobs} at a time" if jobs > 1 else self._beside()
        how = "as many epochs a stage as in the paper's table"
        if self.task.protocol.recipe.until is None or self.task.protocol.recipe.schedule is not None:
            how = f"{self.task.protocol.recipe.max_epochs} epochs a stage, the most there can be"
        return costs, [
            f"estimate: {counted(len(left), 'run')} left, about {steps:,.0f} steps, "
            f"{duration(seconds / jobs)}{at_a_time}",
            f"  a step takes {each} (measured); {how}",
        ]

    def _beside(self) -> str:
        """What else will compute, which the time of the estimate leaves out."""
        if self._config.executor == "ray":
            return " one by one; Ray computes as many at a time as the cluster has room for"
        if (processes := launched_processes()) > 1:
            return f" in one process; {processes} share each batch"
        return ""

    def run(self, lines: list[str]) -> Tables:
        """Run the grid, or go on with it, and write the report.

        Args:
            lines: From `estimate`, to be shown first.

        Returns:
            Ours beside the published figures.

        Raises:
            InputError: If the folder is in use or holds another configuration.
        """
        config = self._config
        noted = session(self._out, self.recorded, config.resolved_device(), verify=self._verify)
        plan = Plan(self.task, config, self.recorded, [*self.lines, *lines], session=noted)
        runs = carry_out(plan, self._display)
        return _report(self._out, self.recorded, config, runs)


def plan_lines(config: ReproduceConfig, task: ImageTask, notes: Sequence[str] = ()) -> list[str]:
    """What will be done, in lines for people.

    Args:
        config: The settings.
        task: What is trained.
        notes: What keeps ours from being held against the published figures.

    Returns:
        The lines.
    """
    protocol = task.protocol
    return [
        f"{config.dataset}, {config.protocol}: {protocol.stages} stages of {protocol.stage_size}, {protocol.model}, "
        f"batches of {protocol.recipe.batch_size}, lr {protocol.lr:g}",
        f"{counted(len(config.methods), 'method')} x {counted(len(config.optimizers), 'optimizer')} x "
        f"{counted(config.seeds, 'seed')}",
        *(f"warning: {note}" for note in notes),
    ]


def report_again(out: Path) -> Tables:
    """Write table and report of a reproduction again, complete or not.

    Args:
        out: Its folder.

    Returns:
        Ours beside the published figures.

    Raises:
        InputError: If the folder holds no reproduction, or nothing is done yet.
    """
    recorded = read_recorded(out)
    if "dataset" not in recorded:
        raise InputError(f"{out / CONFIG_FILE} was not written by warmstart reproduce; name another folder")
    settings = {key: value for key, value in recorded.items() if key in ReproduceConfig.model_fields}
    return _report(out, recorded, ReproduceConfig(**settings), saved_runs(grid_of(recorded), out))


def _report(out: Path, recorded: dict[str, Any], config: ReproduceConfig, runs: dict[RunKey, Saved]) -> Tables:
    results = {
        name: read_results(recorded, {key: saved for key, saved in runs.items() if key.optimizer == name})
        for name in recorded["optimizers"]
    }
    if not any(one.rows for one in results.values()):
        raise InputError(f"{out} holds no finished stage yet; start the same warmstart reproduce again")
    for one in results.values():
        one.config = {**recorded, "stages": recorded["settled"]["stages"]}
    tables = Tables(recorded, results, same_settings=config.is_the_papers and not recorded["notes"])
    write_report(tables, out)
    return tables
