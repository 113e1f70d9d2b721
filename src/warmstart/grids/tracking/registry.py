"""The experiment trackers by name, and how they are opened for a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from warmstart.errors import InputError, nearest
from warmstart.grids.record import Record
from warmstart.grids.settings import GridSettings
from warmstart.grids.tracking.journal import Journal
from warmstart.grids.tracking.mlflow import Mlflow
from warmstart.grids.tracking.service import Service, TrackedGroup
from warmstart.grids.tracking.tensorboard import TensorBoard
from warmstart.grids.tracking.tracker import Feed, Tracker
from warmstart.grids.tracking.wandb import Wandb
from warmstart.runs.key import RunKey
from warmstart.runs.state import RunState

SERVICES: dict[str, Callable[[TrackedGroup], Service]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}


def make_tracker(
    names: Sequence[str],
    *,
    out: Path | None,
    record: Record[GridSettings],
    stages: int,
    done: Mapping[RunKey, RunState] | None = None,
) -> Tracker:
    """Open the named trackers, each with one tracked run for each run of the grid.

    A resumed comparison continues its tracked runs; stages that a tracker lacks, since it was added later or could not
    be reached, are recorded first.

    Args:
        names: Any of ``tensorboard``, ``wandb`` and ``mlflow``, or none.
        out: The grid's folder, which exists and is locked; needed with names.
        record: The content of config.yaml.
        stages: Stages of a complete run.
        done: The runs' states after earlier starts.

    Returns:
        The tracker, to be called with each event and closed at the end.

    Raises:
        InputError: If a name is unknown, its package is missing, or its server refuses access.
    """
    for name in names:
        if name not in SERVICES:
            raise InputError(f"tracker '{name}' is unknown{nearest(name, SERVICES)}")
    if out is None:
        return Tracker([])
    rows = {key: state.rows for key, state in (done or {}).items()}
    journals = {name: Journal(out / "tracking" / f"{name}.json") for name in names}
    services = {
        name: SERVICES[name](TrackedGroup(f"{out.resolve().name}-{journal.id}", journal.id, out))
        for name, journal in journals.items()
    }
    return Tracker([Feed(name, services[name], journals[name], record, stages, rows) for name in journals])
