"""Carrying a reproduction out: data, estimate, the grid, the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from warmstart.data.checksums import verify_official
from warmstart.data.paper_data import find_original, load_paper_data, shortfall
from warmstart.data.paper_sets import PAPER_DATA
from warmstart.errors import InputError
from warmstart.grids.carry_out import Plan, carry_out, jobs_for, unfinished
from warmstart.grids.collect import collect
from warmstart.grids.display import Display
from warmstart.grids.estimate import Cost, Estimator, in_all
from warmstart.grids.record import Provenance, check_output, settled
from warmstart.launch import launched_processes
from warmstart.reproduction.manifest import session
from warmstart.reproduction.papers_methods import PapersTask
from warmstart.reproduction.published_epochs import published_epochs
from warmstart.reproduction.report import Tables, write_report
from warmstart.reproduction.settings import ReproduceSettings, ReproductionRecord
from warmstart.runs.key import RunKey
from warmstart.runs.state import RunState
from warmstart.wording import counted


class Reproduction:
    """One of the paper's tables, or a part of it."""

    def __init__(self, settings: ReproduceSettings, display: Display, *, verify: bool = True) -> None:
        """Read the data and check everything before any run starts; ``verify`` checks the official files' checksums.

        Raises:
            InputError: If the data cannot be read, or the settings do not fit together.
        """
        self._out = Path(settings.out)
        self._display, self._verify = display, verify
        device, settings = settings.device, settled(settings.with_protocol(), self._out)
        self._settings = settings
        path = Path(settings.data) if settings.data is not None else None
        if path is not None and verify:
            verify_official(find_original(settings.dataset, path))
        images = load_paper_data(settings.dataset, path, progress=display.loading)
        model_settings = dict(settings.published_protocol.model_settings.get(settings.model, {}))
        constants = PAPER_DATA[settings.dataset].constants
        mean, std = constants or ((), ())
        self.task = PapersTask(
            images,
            settings.model,
            settings.recipe(),
            settings.stream(),
            device,
            model_settings,
            mean=mean,
            std=std,
        )
        self.task.check(settings.seed_numbers)
        lacking = shortfall(settings.dataset, images)
        self.warnings = [f"the data is incomplete: it has {lacking}"] if lacking else []
        self.record = ReproductionRecord(
            settings=settings,
            data_fingerprint=images.fingerprint(),
            provenance=Provenance.here(),
            recipe=settings.recipe(),
            model_settings=model_settings,
            constants=constants,
            notes=tuple(self.warnings),
        )
        self.lines = plan_lines(settings, self.task)
        if self._out.exists():
            check_output(self._out, self.record)

    def estimate(self) -> tuple[list[Cost], list[str]]:
        """Measure a few steps, and estimate what is left to do.

        Returns:
            A row for each optimizer and method, and lines on the total and how it was estimated.

        Raises:
            InputError: If the runs do not fit into the GPU's memory.
        """
        settings, threads = self._settings, int(self._settings.threads)
        keys = settings.runs()
        done = self.record.grid_folder(self._out).states(keys)
        left = unfinished(keys, done, self.task.stages)
        if not left:
            return [], ["estimate: nothing is left to do"]
        jobs = 1 if settings.executor == "ray" else jobs_for(settings, threads, len(left))
        estimator = Estimator(self.task, settings.optimizers, threads, self._epochs_of)
        estimator.check_memory(jobs)
        costs = estimator.costs(left, done)
        each = ", ".join(f"{1000 * taken:.1f} ms with {name}" for name, taken in estimator.seconds_a_step.items())
        how = "as many epochs a stage as in the paper's table"
        if self.task.recipe.epochs is not None:
            how = f"{self.task.recipe.epochs} epochs a stage"
        elif self.task.recipe.rates is not None:
            how = f"{self.task.recipe.max_epochs} epochs a stage, the most there can be"
        return costs, [
            f"estimate: {in_all(costs, jobs, self._not_in_estimate())}",
            f"  a step takes {each} (measured); {how}",
        ]

    def _epochs_of(self, key: RunKey) -> float:
        """The paper's; with a schedule, for which it gives no counts, the most there can be."""
        if self.task.recipe.rates is not None:
            return self.task.recipe.max_epochs
        return published_epochs(self._settings.dataset, key.optimizer, key.method)

    def _not_in_estimate(self) -> str:
        """How several runs or processes compute at a time, which the estimate does not take into account."""
        if self._settings.executor == "ray":
            return " one by one; Ray computes as many at a time as the cluster has room for"
        if (processes := launched_processes()) > 1:
            return f" in one process; {processes} share each batch"
        return ""

    def run(self, lines: list[str]) -> Tables:
        """Run the grid, or resume it, and write the report; ``lines``, from `estimate`, are shown first.

        Returns:
            Our figures and the published ones.

        Raises:
            InputError: If the folder is in use or holds another configuration.
        """
        noted = session(self._out, self.record, self._settings.resolved_device(), verify=self._verify)
        plan = Plan(self.task, self.record, self._out, [*self.lines, *lines], self.warnings, session=noted)
        return _report(self._out, self.record, carry_out(plan, self._display))


def plan_lines(settings: ReproduceSettings, task: PapersTask) -> list[str]:
    """What will be done, in two lines for people."""
    stream, recipe = task.stream, task.recipe
    return [
        f"{settings.dataset}, {settings.protocol}: {stream.stages} stages of {stream.stage_size}, {task.model}, "
        f"batches of {recipe.batch_size}, lr {recipe.lr:g}",
        f"{counted(len(settings.methods), 'method')} x {counted(len(settings.optimizers), 'optimizer')} x "
        f"{counted(settings.seeds, 'seed')}",
    ]


def report_again(out: Path) -> Tables:
    """Write table and report of a reproduction again, complete or not; InputError if there is nothing to report."""
    record = ReproductionRecord.read(out)
    return _report(out, record, record.grid_folder(out).states(record.settings.runs()))


def _report(out: Path, record: ReproductionRecord, runs: Mapping[RunKey, RunState]) -> Tables:
    settings = record.settings
    results = {name: collect(settings, settings.stages or 0, runs, name) for name in settings.optimizers}
    if not any(one.rows for one in results.values()):
        raise InputError(f"{out} holds no finished stage yet; start the same warmstart reproduce again")
    tables = Tables(record, results)
    write_report(tables, out)
    return tables
