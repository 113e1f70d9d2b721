"""A comparison on images, from settings to report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from warmstart.comparison.estimate import estimate
from warmstart.comparison.looks import look_at, seeds_text, wanted_runs
from warmstart.comparison.outcome import Outcome
from warmstart.comparison.settings import CompareRecord, CompareSettings, FunctionsRecord
from warmstart.comparison.tuning import carry_out_trials, lay_out, read_tuning, unfinished_trials
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.decoding.wanted import GIVEN
from warmstart.errors import InputError
from warmstart.evidence.tuning import Tuning
from warmstart.grids.carry_out import Plan, carry_out
from warmstart.grids.collect import collect
from warmstart.grids.display import Display
from warmstart.grids.estimate import Cost
from warmstart.grids.record import Provenance, check_output, kind_of, settled
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.state import RunState
from warmstart.streams.settings import RANDOM
from warmstart.wording import counted


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
        self._trials = None if settings.tune is None else lay_out(self.record, self.task)
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
        settings, trials = self._settings, {} if self._trials is None else unfinished_trials(self._trials)
        if self._out.exists():
            check_output(self._out, self.record)
        if settings.tune is not None and not any(trials.values()):
            settings = settings.with_chosen(read_tuning(self._out, settings.methods).chosen)
        done = self.record.grid_folder(self._out).states(settings.runs())
        return estimate(self.task, settings, done, trials)

    def run(self) -> Outcome:
        """Run the comparison, or resume it, and write its report.

        Returns:
            What it shows.

        Raises:
            InputError: If the folder is in use or holds another configuration.
        """
        settings, lines, warnings, tuning = self._settings, self.lines, self.warnings, None
        if self._trials is not None:
            tuning = carry_out_trials(self._trials, self.task, self._display, lines, warnings)
            lines, warnings = ["tuned: now each method as chosen, and as it was given, on fresh seeds"], ()
        if tuning is not None:
            settings = settings.with_chosen(tuning.chosen)
        record = self.record.model_copy(update={"settings": settings})
        plan = Plan(self.task, record, self._out, lines, warnings, wanted=partial(wanted_runs, settings))
        return report(self._out, record, carry_out(plan, self._display), tuning)


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
    shift = {
        None: "",
        "pixels": ", each with its own order of pixels",
        "labels": ", each with its own labels",
        "random-labels": ", each with labels drawn at random",
    }
    return f"{counted(task.stages, 'stage')} of {size}{order}{shift[settings.shift]}"


def _tested(settings: CompareSettings, task: ImageTask) -> str:
    count = f"{task.tested(0, task.stages):,}"
    if settings.shift == "random-labels":
        return "tested on the images trained on"
    if settings.test == "next":
        return "tested by the next arrival"
    if task.images.has_test_part and settings.test != "rotate":
        return f"{count} test images"
    return f"{count} held out to test, {'the same' if settings.test == 'fixed' else 'others'} with each seed"


def report_again(out: Path, margin: float | None = None) -> Outcome:
    """Write table and report of a comparison again, complete or not; ``margin``, if given, replaces its own.

    Returns:
        What it shows.

    Raises:
        InputError: If the folder holds no comparison, or the margin is out of range.
    """
    kind = FunctionsRecord if kind_of(out) == FunctionsRecord.kind else CompareRecord
    record = kind.read(out)
    if margin is not None:
        type(record.settings).setting("margin").check("margin", margin)
        record = record.model_copy(update={"settings": record.settings.model_copy(update={"margin": margin})})
    tuning = None
    if isinstance(record, CompareRecord) and record.settings.tune is not None:
        tuning = read_tuning(out, record.settings.methods)
        record = record.model_copy(update={"settings": record.settings.with_chosen(tuning.chosen)})
    return report(out, record, record.grid_folder(out).states(record.settings.runs()), tuning)


def report(
    out: Path, record: CompareRecord | FunctionsRecord, runs: Mapping[RunKey, RunState], tuning: Tuning | None
) -> Outcome:
    """Write table and report of the runs so far; InputError if no stage is finished yet."""
    settings = record.settings
    seen = look_at(settings, runs)
    if not seen.results.rows:
        raise InputError(f"{out} holds no finished stage yet; start warmstart compare --out {out} again")
    verdict = seen.verdict
    if tuning is not None:
        tuning = replace(tuning, tested=collect(settings, seen.results.stages, runs))
        verdict = replace(verdict, notes=(*tuning.notes, *verdict.notes))
    outcome = Outcome(seen.results, verdict, record, tuning)
    outcome.write_report(out)
    return outcome
