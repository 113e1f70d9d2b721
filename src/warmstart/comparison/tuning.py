"""The tuning of a comparison's methods: a grid of trials in the folder ``tuning``, and what is chosen from it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from warmstart.comparison.settings import TUNING_SEED, CompareRecord, CompareSettings, TuningRecord, TuningSettings
from warmstart.errors import HelpedError, InputError
from warmstart.evidence.tuning import Trial, Tuned, Tuning, trials_csv
from warmstart.grids.carry_out import Plan, carry_out, unfinished
from warmstart.grids.collect import collect
from warmstart.grids.display import Display
from warmstart.grids.record import CONFIG_FILE
from warmstart.grids.trials import trials_of
from warmstart.runs.image_task import ImageTask
from warmstart.storage.atomic import write_text
from warmstart.wording import counted


def tuning_folder(out: Path) -> Path:
    """Where the trials of a comparison in ``out`` are."""
    return out / "tuning"


def lay_out(record: CompareRecord, task: ImageTask) -> TuningRecord:
    """The trials of a comparison, those that were laid out at earlier starts included; nothing is written."""
    settings, folder = record.settings, tuning_folder(Path(record.settings.out))
    before = TuningRecord.read(folder).trials if (folder / CONFIG_FILE).exists() else {}
    trials = {method: before.get(method) or _trials_of(settings, method) for method in settings.methods}
    labels = tuple(dict.fromkeys(label for of_one in trials.values() for label in of_one))
    tuning = _to_tune_on(task)
    changed = {
        **{"methods": labels, "stages": tuning.stages, "out": str(folder)},
        **{"seeds": 1, "max_seeds": None, "diagnose": False},
    }
    return TuningRecord(
        settings=TuningSettings.model_construct(**{**dict(settings), **changed}),
        data_fingerprint=record.data_fingerprint,
        provenance=record.provenance,
        trials=trials,
        judged_on=f"{counted(tuning.tested(TUNING_SEED, tuning.stages), 'example')} held out of the training data",
    )


def _trials_of(settings: CompareSettings, method: str) -> tuple[str, ...]:
    assert settings.tune is not None
    return tuple(trials_of(method, settings.tune, settings.optimizer))


def carry_out_trials(
    record: TuningRecord, task: ImageTask, display: Display, lines: Sequence[str], warnings: Sequence[str]
) -> Tuning | None:
    """Compute all trials that are not done, in all processes that were launched together; their folder lists them.

    Returns:
        What was tried; None in all processes but the first.
    """
    folder = Path(record.settings.out)
    line = f"tuning: {counted(len(record.settings.methods), 'trial')}, judged on {record.judged_on}"
    with suppress(HelpedError):
        carry_out(Plan(_to_tune_on(task), record, folder, [*lines, line], warnings, followed=True), display)
        tuning = read_tuning(folder.parent, tuple(record.trials))
        write_text(folder / "trials.csv", trials_csv(tuning))
        return tuning
    return None


def unfinished_trials(record: TuningRecord) -> dict[str, int]:
    """How many trials of each method are still to be computed."""
    settings, folder = record.settings, Path(record.settings.out)
    assert settings.stages is not None
    done = record.grid_folder(folder).states(settings.runs())
    left = {key.method for key in unfinished(settings.runs(), done, settings.stages)}
    return {method: sum(label in left for label in labels) for method, labels in record.trials.items()}


def read_tuning(out: Path, methods: Sequence[str]) -> Tuning:
    """What was tried of some methods, from the trials of the comparison in ``out``; InputError if some are missing."""
    folder = tuning_folder(out)
    record = TuningRecord.read(folder)
    settings = record.settings
    assert settings.stages is not None
    states = record.grid_folder(folder).states(settings.runs())
    if not set(methods) <= set(record.trials) or unfinished(settings.runs(), states, settings.stages):
        raise InputError(f"{folder} does not hold all trials; start warmstart compare --out {out} again")
    results = collect(settings, settings.stages, states)
    tuned = [Tuned(method, tuple(Trial.of(results, label) for label in record.trials[method])) for method in methods]
    return Tuning(tuple(tuned), record.judged_on, settings.lr)


def _to_tune_on(task: ImageTask) -> ImageTask:
    return replace(task, validation=True, diagnosed=False)
