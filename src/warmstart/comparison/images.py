"""A comparison on images, from settings to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from warmstart.comparison.looks import look_at, seeds_text, wanted_runs
from warmstart.comparison.report import write_report
from warmstart.comparison.settings import CompareRecord, CompareSettings, FunctionsRecord
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.decoding.wanted import GIVEN
from warmstart.errors import InputError
from warmstart.evidence.verdict import Verdict
from warmstart.grids.carry_out import Plan, carry_out, jobs_for, unfinished
from warmstart.grids.display import Display
from warmstart.grids.estimate import Cost, Estimator, duration, measured_epochs
from warmstart.grids.record import Provenance, check_output, kind_of, settled
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.rehearsal import rehearse
from warmstart.runs.results import Results
from warmstart.runs.state import RunState
from warmstart.streams.settings import RANDOM
from warmstart.wording import counted

TRIED_SECONDS = 5.0
"""For a dry run, the first stage is trained for so long at most."""


class ImageComparison:
    """A comparison on images, checked and ready to be carried out."""

    def __init__(self, settings: CompareSettings, display: Display, given: ImageData | None = None) -> None:
        """Read the data and check everything; without ``given`` the data that ``settings.data`` names is loaded.

        Raises:
            InputError: If the data cannot be read, or the settings do not fit together.
        """
        self._out, self._display = Path(settings.out), display
        device, settings = settings.device, settled(settings, self._out)
        images = given or load(
            settings.data,
            image_size=settings.image_size,
            fit=settings.fit,
            image_column=settings.image_column,
            label_column=settings.label_column,
            order=settings.read_order,
            skip_unreadable=settings.skip_unreadable,
            cache=settings.cache,
            progress=display.loading,
        )
        self.task = ImageTask(
            images, settings.model, recipe=settings, stream=settings, device=device, diagnosed=settings.diagnose
        )
        self.warnings = (*images.notes, *self.task.check(settings.seed_numbers))
        self._settings = settings = settings.model_copy(update={"stages": self.task.stages})
        self.record = CompareRecord(
            settings=settings,
            data_fingerprint=images.fingerprint(),
            provenance=Provenance.here(),
            notes=self.warnings,
            stream=_stream(settings, self.task),
            **_called(given),
        )
        self.lines = _description(settings, self.task)
        if images.arrived is not None and settings.order == RANDOM:
            self.lines.append("  drawn at random; --order month takes them as they arrived")

    def estimate(self) -> tuple[list[Cost], list[str]]:
        """Measure a few steps, and try how many epochs the first stage takes.

        Returns:
            A row for each method, and lines on the total and how it was estimated.

        Raises:
            InputError: If the folder holds another comparison, or the runs do not fit into the GPU's memory.
        """
        settings, threads = self._settings, int(self._settings.threads)
        if self._out.exists():
            check_output(self._out, self.record)
        done = self.record.grid_folder(self._out).states(settings.runs())
        wanted = wanted_runs(settings, done)
        left = unfinished(wanted.runs, done, self.task.stages)
        if not left:
            return [], ["estimate: nothing is left to do"]
        rehearse(self.task, left)
        epochs, ended = measured_epochs(self.task, left[0], TRIED_SECONDS)
        jobs = jobs_for(settings, threads, len(left))
        estimator = Estimator(self.task, settings.optimizer_names, threads, lambda key: epochs)
        estimator.check_memory(jobs)
        how = f"as many epochs a stage as {left[0].method} took in the first, {epochs:.0f} (measured)"
        if settings.epochs is not None:
            how = f"{epochs:.0f} epochs a stage"
        elif not ended:
            how = f"at least {epochs:.0f} epochs a stage: the first one had not ended after {TRIED_SECONDS:.0f} s"
        each = 1000 * estimator.seconds_a_step[settings.optimizer]
        at_a_time = f", {jobs} at a time" if jobs > 1 else ""
        least = "" if ended else "at least "

        def costs_of(keys: Sequence[RunKey]) -> list[Cost]:
            return estimator.costs([(key, len(done[key].rows) if key in done else 0) for key in keys])

        def in_all(keys: Sequence[RunKey]) -> str:
            costs = costs_of(keys)
            steps, seconds = sum(cost.steps for cost in costs), sum(cost.seconds for cost in costs)
            time = f"{duration(seconds / jobs)}{at_a_time}"
            return f"{counted(len(keys), 'run')} left, {least}about {steps:,.0f} steps, {time}"

        most = unfinished(settings.runs(), done, self.task.stages)
        until = f" to the look at {len(wanted.runs) // len(settings.methods)} seeds" * (len(settings.looks) > 1)
        at_most = [f"  at most, with {settings.max_seeds} seeds: {in_all(most)}"] if len(most) > len(left) else []
        return costs_of(left), [
            f"estimate{until}: {in_all(left)}",
            *at_most,
            f"  a step takes {each:.1f} ms (measured); {how}",
            f"  memory: about {estimator.peak_memory / 2**30:.1f} GiB a run",
        ]

    def run(self) -> tuple[Results, Verdict]:
        """Run the comparison, or resume it, and write its report.

        Returns:
            All results and the verdict.

        Raises:
            InputError: If the folder is in use or holds another configuration.
        """
        wanted = partial(wanted_runs, self._settings)
        plan = Plan(self.task, self.record, self._out, self.lines, self.warnings, wanted=wanted)
        return report(self._out, self.record, carry_out(plan, self._display))


def _called(given: ImageData | None) -> dict[str, Any]:
    return {} if given is None else {"called": "ws.compare_images"}


def _description(settings: CompareSettings, task: ImageTask) -> list[str]:
    return [
        f"{task.data}: {_stream(settings, task)}, {task.images.num_classes} classes",
        f"{settings.model}, {settings.optimizer}; {counted(len(settings.methods), 'method')} x {seeds_text(settings)}",
    ]


def _stream(settings: CompareSettings, task: ImageTask) -> str:
    return f"{_arrivals(settings, task)}, {_tested(settings, task)}"


def _arrivals(settings: CompareSettings, task: ImageTask) -> str:
    least, most = min(task.arriving), max(task.arriving)
    size = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    order = "" if settings.order == RANDOM else f" by {settings.order}" if settings.order != GIVEN else " as given"
    shift = {None: "", "pixels": ", each with its own order of pixels", "labels": ", each with its own labels"}
    return f"{counted(task.stages, 'stage')} of {size}{order}{shift[settings.shift]}"


def _tested(settings: CompareSettings, task: ImageTask) -> str:
    count = f"{task.tested(0, task.stages):,}"
    if settings.test == "next":
        return "tested by the next arrival"
    if task.images.has_test_part and settings.test != "rotate":
        return f"{count} test images"
    return f"{count} held out to test, {'the same' if settings.test == 'fixed' else 'others'} with each seed"


def report_again(out: Path, margin: float | None = None) -> tuple[Results, Verdict]:
    """Write table and report of a comparison again, complete or not; ``margin``, if given, replaces its own.

    Returns:
        The results and the verdict.

    Raises:
        InputError: If the folder holds no comparison, or the margin is out of range.
    """
    kind = FunctionsRecord if kind_of(out) == FunctionsRecord.kind else CompareRecord
    record = kind.read(out)
    if margin is not None:
        type(record.settings).setting("margin").check("margin", margin)
        record = record.model_copy(update={"settings": record.settings.model_copy(update={"margin": margin})})
    return report(out, record, record.grid_folder(out).states(record.settings.runs()))


def report(
    out: Path, record: CompareRecord | FunctionsRecord, runs: Mapping[RunKey, RunState]
) -> tuple[Results, Verdict]:
    """Write table and report of the runs so far; InputError if no stage is finished yet."""
    seen = look_at(record.settings, runs)
    if not seen.results.rows:
        raise InputError(f"{out} holds no finished stage yet; start warmstart compare --out {out} again")
    write_report(seen.results, seen.verdict, record, out)
    return seen.results, seen.verdict
