"""Gradient descent on patches over several seeds and methods, and the files that show it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import pad

from warmstart import plain_yaml
from warmstart.data.features_and_noise import PatchWorld, as_images, draw_examples
from warmstart.evidence.table import mean_std
from warmstart.reporting import figures, html
from warmstart.reporting.figures import Series
from warmstart.reporting.html import Html
from warmstart.reporting.panels import Panel, panels
from warmstart.storage.atomic import write_bytes, write_text
from warmstart.theory.gradient_descent import DescentStage, descend, make_methods
from warmstart.theory.settings import DescentSettings
from warmstart.theory.study import versions
from warmstart.wording import counted

_MEASURES: Mapping[str, Callable[[DescentStage], float]] = {
    "test_accuracy": lambda stage: stage.test_accuracy,
    "steps": lambda stage: stage.steps,
    "live_examples": lambda stage: stage.live_examples,
    "unfinished_examples": lambda stage: stage.unfinished_examples,
    "features_before": lambda stage: _length(stage.before.features),
    "features_after": lambda stage: _length(stage.after.features),
    "noise_before": lambda stage: _length(stage.before.noise),
    "noise_after": lambda stage: _length(stage.after.noise),
}
"""Columns of gradient-descent.csv beside method, seed and stage."""

_CONTACT_SHEET = (2, 8)
"""Rows and columns of images."""
_ZOOM = 4

_PANELS = {
    "test_accuracy": "test accuracy, %",
    "steps": "steps",
    "features_after": "filters along features",
    "noise_after": "filters along noise",
}


@dataclass(frozen=True)
class DescentStudy:
    """How each method's network was trained."""

    settings: DescentSettings
    runs: Mapping[tuple[str, int], Sequence[DescentStage]]
    """(method, seed) -> one record a stage."""

    def values(self, method: str, measure: str) -> NDArray[np.float64]:
        """A column of gradient-descent.csv for one method: (seeds, stages)."""
        value = _MEASURES[measure]
        return np.array([[value(stage) for stage in self.runs[method, seed]] for seed in range(self.settings.seeds)])


def run_descent(settings: DescentSettings, progress: Callable[[int], None] = lambda done: None) -> DescentStudy:
    """Train every method's network on every seed's stream; ``progress`` gets the number of networks trained."""
    methods = make_methods(settings)
    runs = {}
    for seed in range(settings.seeds):
        for name, method in methods.items():
            runs[name, seed] = descend(settings, method, seed)
            progress(len(runs))
    return DescentStudy(settings, runs)


def write_descent(study: DescentStudy, out: Path) -> list[Path]:
    """Write gradient-descent.csv, .yaml, .png and .html, filters.csv and some images, each whole or not at all."""
    files = [out / f"gradient-descent.{suffix}" for suffix in ("csv", "yaml", "png", "html")]
    settings = study.settings.model_dump(mode="json", exclude={"out"})
    recorded = {**versions(), "torch": str(torch.__version__), "threads": torch.get_num_threads()}
    write_text(files[0], _csv(study))
    write_text(files[1], plain_yaml.dump({**settings, "recorded": recorded}))
    write_bytes(files[2], figures.to_png(panels(_panels(study), x_label="stage")))
    write_text(files[3], _page(study))
    filters, images = out / "filters.csv", out / "features-and-noise.png"
    write_text(filters, _filters_csv(study))
    write_bytes(images, _contact_sheet(study.settings.make_world()))
    return [*files, filters, images]


COLUMNS = (
    "method",
    "test accuracy, %",
    "steps",
    "features kept, %",
    "noise kept, %",
    "features at end",
    "noise at end",
)
"""Heads of `last_stage_rows`."""


def last_stage_rows(study: DescentStudy) -> list[tuple[str, ...]]:
    """For each method a cell for each of `COLUMNS`: ``mean (std)`` over seeds, and means of the filters' lengths."""
    rows = []
    for method in study.settings.methods:
        accuracy, steps = (study.values(method, measure)[:, -1] for measure in ("test_accuracy", "steps"))
        ends = [study.values(method, f"{part}_after")[:, -1].mean() for part in ("features", "noise")]
        rows.append(
            (
                method,
                mean_std((100 * accuracy).tolist(), ".1f"),
                mean_std(steps.tolist(), ".0f"),
                *(_kept(study, method, part) for part in ("features", "noise")),
                *(f"{end:.2f}" for end in ends),
            )
        )
    return rows


def _kept(study: DescentStudy, method: str, part: str) -> str:
    """A part's length when training begins, in percent of that when the stage before ended; mean over all arrivals."""
    began, ended = (study.values(method, f"{part}_{moment}") for moment in ("before", "after"))
    shares = began[:, 1:] / ended[:, :-1]
    return f"{100 * shares.mean():.1f}" if shares.size else "–"


def _page(study: DescentStudy) -> str:
    settings = study.settings
    unfinished = _unfinished(study)
    return html.page(
        "Features and noise under gradient descent",
        f"{settings.stages} stages of {settings.examples} images · {settings.classes} classes of {settings.features} "
        f"features · noise {settings.noise:g} times a feature · {settings.filters} filters a class · "
        f"{counted(settings.seeds, 'seed')}",
        [
            html.section("By stage", _figures(study)),
            html.section(
                "The last stage",
                html.table(
                    COLUMNS,
                    last_stage_rows(study),
                    caption="Kept: the length of the filters' part along features and along noise after the method has "
                    "acted on newly arrived data, against before; mean over all arrivals. At end: of the last stage.",
                ),
                html.paragraph(unfinished, kind="warning") if unfinished else Html(""),
            ),
            html.section("How to read this", _guide(settings)),
        ],
        footer="Written by warmstart. This file needs no network and no other file.",
    )


def _figures(study: DescentStudy) -> Html:
    blocks = []
    for number, panel in enumerate(_panels(study)):
        drawn = figures.lines(panel.series, x_label="stage", y_label=panel.title)
        svg = figures.to_svg(drawn, name=f"descent-{number}", description=f"{panel.title} by stage for each method")
        band = " The band is one standard deviation over seeds." if study.settings.seeds > 1 else ""
        blocks.append(html.figure(svg, f"{panel.title.capitalize()} at the end of each stage.{band}"))
    return html.side_by_side(*blocks)


def _unfinished(study: DescentStudy) -> str:
    """A sentence on stages that ended before every example was right, or nothing."""
    counts = {
        method: int((study.values(method, "unfinished_examples") > 0).sum())
        for method in study.settings.methods
        if (study.values(method, "unfinished_examples") > 0).any()
    }
    if not counts:
        return ""
    named = ", ".join(f"{count} of {method}" for method, count in counts.items())
    return (
        f"Of {study.settings.seeds * study.settings.stages} stages of each method these reached the limit of "
        f"{study.settings.max_steps} steps with examples that still had a gradient: {named}."
    )


def _guide(settings: DescentSettings) -> Html:
    return html.bullets(
        [
            f"An image is {settings.grid} x {settings.grid} patches: features of its class, each with its own "
            "probability, one patch of noise that no other image has, the rest empty.",
            "The network: a convolution over patches, squared ReLU, fixed sums by class. Full-batch gradient descent "
            "on the hinge loss until every example is right with margin 1; then no example has a gradient.",
            "A filter's part along features is its projection on the features of all classes; along noise, on the "
            "noise patches of the examples seen so far. Both are lengths over all filters; `filters.csv` has each.",
            "`oracle` removes the noise part of each filter when new data arrives, exactly. "
            "`shrink-perturb[noise_std=0.0]` shrinks all weights alike: what DASH gains over it is due to direction.",
        ]
    )


def _panels(study: DescentStudy) -> list[Panel]:
    row = []
    for measure, title in _PANELS.items():
        series = []
        for method in study.settings.methods:
            values = study.values(method, measure) * (100 if measure == "test_accuracy" else 1)
            std = values.std(axis=0, ddof=1).tolist() if study.settings.seeds > 1 else None
            series.append(Series(method, range(1, study.settings.stages + 1), values.mean(axis=0).tolist(), std))
        row.append(Panel(title, series))
    return row


def _csv(study: DescentStudy) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["method", "seed", "stage", *_MEASURES])
    for method in study.settings.methods:
        for seed in range(study.settings.seeds):
            for number, stage in enumerate(study.runs[method, seed], start=1):
                rows.writerow([method, seed, number, *(f"{value(stage):.6g}" for value in _MEASURES.values())])
    return text.getvalue()


def _filters_csv(study: DescentStudy) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["method", "seed", "stage", "moment", "filter", "along_features", "along_noise"])
    for (method, seed), stages in study.runs.items():
        for number, stage in enumerate(stages, start=1):
            for moment, parts in (("before", stage.before), ("after", stage.after)):
                pairs = zip(parts.features.tolist(), parts.noise.tolist(), strict=True)
                for index, (features, noise) in enumerate(pairs):
                    rows.writerow([method, seed, number, moment, index, f"{features:.6g}", f"{noise:.6g}"])
    return text.getvalue()


def _contact_sheet(world: PatchWorld) -> bytes:
    """The first images of seed 0 side by side, every class in turn, as a PNG."""
    rows, columns = _CONTACT_SHEET
    images = as_images(world, draw_examples(world, seed=0, count=columns * rows).patches)
    framed = pad(images, (1, 1, 1, 1), value=255)
    side = framed.shape[-1]
    sheet = framed.view(rows, columns, world.channels, side, side).permute(0, 3, 1, 4, 2)
    pixels = sheet.reshape(rows * side, columns * side, world.channels).numpy().repeat(_ZOOM, 0).repeat(_ZOOM, 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return file.getvalue()


def _length(parts: torch.Tensor) -> float:
    return float(parts.norm())
