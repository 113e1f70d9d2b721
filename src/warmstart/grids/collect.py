"""From runs to results: what the runs of a grid with one optimizer have measured."""

from __future__ import annotations

from collections.abc import Mapping

from warmstart.grids.settings import GridSettings
from warmstart.runs.key import RunKey
from warmstart.runs.results import Results
from warmstart.runs.state import RunState


def collect(settings: GridSettings, stages: int, runs: Mapping[RunKey, RunState], optimizer: str = "") -> Results:
    """All measurements with one optimizer, in order of method, seed and stage; the only one if none is named."""
    optimizer = optimizer or settings.optimizer_names[0]
    wanted = (key for key in settings.runs() if key.optimizer == optimizer and key in runs)
    held = {(key.method, key.seed): runs[key] for key in wanted}
    return Results(settings.arms, settings.seed_numbers, stages, settings.metric, held)
