"""A comparison on images, from settings to report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from warmstart.comparison.report import write_report
from warmstart.comparison.settings import CompareRecord, CompareSettings, FunctionsRecord
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.errors import InputError
from warmstart.evidence.verdict import Verdict, judge
from warmstart.grids.carry_out import Plan, carry_out
from warmstart.grids.collect import collect
from warmstart.grids.display import Display
from warmstart.grids.record import Provenance, kind_of, settled
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.results import Results
from warmstart.runs.state import RunState
from warmstart.wording import counted


def run_comparison(
    settings: CompareSettings, display: Display, given: ImageData | None = None
) -> tuple[Results, Verdict]:
    """Run a comparison, or resume one, and write its report.

    Without ``given`` the data that ``settings.data`` names is loaded.

    Returns:
        All results and the verdict.

    Raises:
        InputError: If the input is wrong, or the folder is in use or holds another configuration.
    """
    out = Path(settings.out)
    device, settings = settings.device, settled(settings, out)
    images = given or load(
        settings.data,
        image_size=settings.image_size,
        fit=settings.fit,
        image_column=settings.image_column,
        label_column=settings.label_column,
        skip_unreadable=settings.skip_unreadable,
        cache=settings.cache,
        progress=display.loading,
    )
    task = ImageTask(images, settings.model, recipe=settings, stream=settings, device=device)
    task.check(settings.seed_numbers)
    record = CompareRecord(
        settings=settings, data_fingerprint=images.fingerprint(), provenance=Provenance.here(), **_called(given)
    )
    runs = carry_out(Plan(task, record, out, _description(settings, images), images.notes), display)
    return report(out, record, runs)


def _called(given: ImageData | None) -> dict[str, str]:
    return {} if given is None else {"called": "ws.compare_images"}


def _description(settings: CompareSettings, images: ImageData) -> list[str]:
    return [
        f"{images.name}: {settings.stages} stages of {settings.stage_size}, {len(images.test_labels):,} test images, "
        f"{images.num_classes} classes",
        f"{settings.model}, {settings.optimizer}; {counted(len(settings.methods), 'method')} x "
        f"{counted(settings.seeds, 'seed')}",
    ]


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
    results = collect(record.settings, record.settings.stages, runs)
    if not results.rows:
        raise InputError(f"{out} holds no finished stage yet; start warmstart compare --out {out} again")
    verdict = judge(results, margin=record.settings.margin)
    write_report(results, verdict, record, out)
    return results, verdict
