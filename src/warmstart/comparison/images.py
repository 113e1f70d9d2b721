"""A comparison from settings to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.comparison.report import write_report
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.errors import InputError
from warmstart.evidence.verdict import Verdict
from warmstart.grids.carry_out import Plan, carry_out, grid_of
from warmstart.grids.display import Display
from warmstart.grids.record import read_recorded, record, with_recorded_threads
from warmstart.grids.repeat_command import CALLED
from warmstart.grids.settings import RECORDED, CompareConfig
from warmstart.runs.image_task import ImageTask, TrainingProtocol
from warmstart.runs.results import Results
from warmstart.runs.run import RunKey, Saved, read_results, saved_runs
from warmstart.training.loop import Recipe
from warmstart.wording import counted


def run_comparison(config: CompareConfig, display: Display, given: ImageData | None = None) -> tuple[Results, Verdict]:
    """Run a comparison, or go on with one, and write its report.

    Args:
        config: The settings.
        display: Shows what is done.
        given: The data, such as ``from_dataset`` makes of a torch ``Dataset``; loaded as ``config.data`` says if
            not given.

    Returns:
        All results and the verdict.

    Raises:
        InputError: If the input is wrong, or the folder is in use or holds another configuration.
    """
    out = Path(config.out)
    config = with_recorded_threads(config, out)
    images = given or load(
        config.data,
        image_size=config.image_size,
        image_column=config.image_column,
        label_column=config.label_column,
        progress=display.loading,
    )
    task = ImageTask(protocol_of(config), images)
    task.check([config.optimizer], config.seeds)
    recorded = record(config, images.fingerprint())
    if given is not None:
        recorded[RECORDED][CALLED] = "ws.compare_images"
    runs = carry_out(Plan(task, config, recorded, _description(config, images)), display)
    return report(out, recorded, config.margin, runs)


def protocol_of(config: CompareConfig) -> TrainingProtocol:
    """How every run of a comparison is trained.

    Args:
        config: The settings.

    Returns:
        The protocol.
    """
    return TrainingProtocol(
        model=config.model,
        stages=config.stages,
        stage_size=config.stage_size,
        recipe=Recipe(config.batch_size, config.until, config.max_epochs, precision=config.precision),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        device=config.device,
    )


def _description(config: CompareConfig, images: ImageData) -> list[str]:
    return [
        f"{images.name}: {config.stages} stages of {config.stage_size}, {len(images.test_labels):,} test images, "
        f"{images.num_classes} classes",
        f"{config.model}, {config.optimizer}; {counted(len(config.methods), 'method')} x "
        f"{counted(config.seeds, 'seed')}",
    ]


def report_again(out: Path, margin: float | None = None) -> tuple[Results, Verdict]:
    """Write table and report of a comparison again, complete or not.

    Args:
        out: Its folder.
        margin: The loss in accuracy that is acceptable; None takes the comparison's own.

    Returns:
        The results and the verdict.

    Raises:
        InputError: If the folder holds no comparison.
    """
    recorded = read_recorded(out)
    margin = recorded.get("margin", 0.0) if margin is None else margin
    return report(out, recorded, margin, saved_runs(grid_of(recorded), out))


def report(out: Path, recorded: dict[str, Any], margin: float, runs: dict[RunKey, Saved]) -> tuple[Results, Verdict]:
    """Write table and report.

    Args:
        out: The comparison's folder.
        recorded: What config.yaml holds.
        margin: The loss that is acceptable, in the metric's unit.
        runs: What its runs have saved.

    Returns:
        The results and the verdict.

    Raises:
        InputError: If no stage is done yet.
    """
    results = read_results(recorded, runs)
    if not results.rows:
        raise InputError(f"{out} holds no finished stage yet; start warmstart compare --out {out} again")
    return results, write_report(results, out, margin=margin)
