"""The discrete framework over many seeds: every method on the same draws, and the files that show it."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart import plain_yaml
from warmstart.reporting import figures
from warmstart.reporting.figures import Series
from warmstart.reporting.panels import Panel, panels
from warmstart.storage.atomic import write_bytes, write_text
from warmstart.theory.draw import draw
from warmstart.theory.learning import METHODS, Outcome, learn_stream
from warmstart.theory.settings import DiscreteSettings

MEASURES: Mapping[str, str] = {
    "learned_features": "learned features",
    "nonzero_gradient_examples": "examples with gradient",
    "memorised_examples": "memorised examples",
    "test_accuracy": "test accuracy, %",
}
"""Columns of theory.csv beside method, seed and stage, and what figures call them."""

_SHOWN = ("learned_features", "test_accuracy", "nonzero_gradient_examples")
"""The paper's three panels."""


@dataclass(frozen=True)
class Study:
    """What each method learned from each seed's stream."""

    settings: DiscreteSettings
    streams: Mapping[tuple[str, int], Sequence[Outcome]]
    """(method, seed) -> one outcome a stage."""

    def values(self, method: str, measure: str) -> NDArray[np.float64]:
        """A measure of `MEASURES` for one method: (seeds, stages), in the unit of theory.csv."""
        streams = [self.streams[method, seed] for seed in range(self.settings.seeds)]
        return np.array([[getattr(outcome, measure) for outcome in stream] for stream in streams], dtype=float)


def run_study(settings: DiscreteSettings, progress: Callable[[int], None] = lambda done: None) -> Study:
    """Let every method learn from every seed's stream; ``progress`` gets the number of streams learned."""
    streams = {}
    for seed in range(settings.seeds):
        data = draw(settings, seed)
        for method in METHODS:
            streams[method, seed] = learn_stream(settings, data, method)
            progress(len(streams))
    return Study(settings, streams)


def write_study(study: Study, out: Path, page: str) -> list[Path]:
    """Write theory.csv, theory.yaml, theory.png and theory.html, each whole or not at all."""
    files = [out / f"theory.{suffix}" for suffix in ("csv", "yaml", "png", "html")]
    write_text(files[0], _csv(study))
    write_text(files[1], plain_yaml.dump({**study.settings.model_dump(exclude={"out"}), "recorded": versions()}))
    write_bytes(files[2], figures.to_png(panels(study_panels(study), x_label="stage")))
    write_text(files[3], page)
    return files


def study_panels(study: Study) -> list[Panel]:
    """The paper's three panels, by stage; bands are one sample std over seeds."""
    return [Panel(MEASURES[measure], _series(study, measure)) for measure in _SHOWN]


def versions() -> dict[str, Any]:
    """Versions of warmstart, numpy and Python, on which the numbers depend besides the settings."""
    return {"warmstart": version("warmstart"), "numpy": np.__version__, "python": platform.python_version()}


def _series(study: Study, measure: str) -> list[Series]:
    series = []
    for method in METHODS:
        values = study.values(method, measure) * (100 if measure == "test_accuracy" else 1)
        std = values.std(axis=0, ddof=1).tolist() if study.settings.seeds > 1 else None
        series.append(Series(method, range(1, study.settings.stages + 1), values.mean(axis=0).tolist(), std))
    return series


def _csv(study: Study) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["method", "seed", "stage", *MEASURES])
    for method in METHODS:
        for seed in range(study.settings.seeds):
            for stage, outcome in enumerate(study.streams[method, seed], start=1):
                rows.writerow([method, seed, stage, *(getattr(outcome, measure) for measure in MEASURES)])
    return text.getvalue()
