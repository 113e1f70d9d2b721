"""theory.html: what the discrete framework shows, and a stepper through a stage of one seed's stream."""

from __future__ import annotations

import base64
import json
from importlib.resources import files

import numpy as np

from warmstart.evidence.table import mean_std
from warmstart.reporting import figures, html
from warmstart.reporting.html import Html
from warmstart.theory.draw import draw
from warmstart.theory.learning import METHODS
from warmstart.theory.settings import DiscreteSettings
from warmstart.theory.study import MEASURES, Study, study_panels
from warmstart.wording import counted

_SEED = 0
"""The stream that the stepper shows."""
_LARGEST = 1_000_000
"""Most bytes of examples in the page; of a longer stream it shows the first stages."""


def theory_page(study: Study) -> str:
    """The text of a study's theory.html."""
    settings = study.settings
    lead = (
        f"{settings.stages} stages of {settings.examples} examples · {settings.classes} classes of {settings.features} "
        f"features · gamma {settings.gamma} · tau {settings.tau} · {counted(settings.seeds, 'seed')}"
    )
    return html.page(
        "Why warm starts fail: features, noise, memorisation",
        lead,
        [
            html.section("The rules", _rules(settings)),
            html.section("What each method learns, and what it costs", _figures(study), last_stage(study)),
            html.section("Step through a stage", *_stepper(study)),
        ],
        footer=(
            "The framework: Shin, Oh, Cho, Yun, NeurIPS 2024, arXiv 2410.23495. "
            "Written by warmstart. This file needs no network and no other file."
        ),
    )


def last_stage_rows(study: Study) -> list[tuple[str, ...]]:
    """For each method its name and its measures at the last stage, ``mean (std)`` over seeds."""
    rows = []
    for method in METHODS:
        cells = [method]
        for measure in MEASURES:
            last = study.values(method, measure)[:, -1]
            percent = measure == "test_accuracy"
            cells.append(mean_std((last * (100 if percent else 1)).tolist(), ".2f" if percent else ".0f"))
        rows.append(tuple(cells))
    return rows


def last_stage(study: Study) -> Html:
    """`last_stage_rows` as a table of the page."""
    spread = "mean (sample std) over seeds" if study.settings.seeds > 1 else "one seed"
    return html.table(
        ("method", *MEASURES.values()),
        last_stage_rows(study),
        caption=f"At the last stage, {spread}. With gradient: at its start; memorised: at its end.",
    )


def _rules(settings: DiscreteSettings) -> Html:
    return html.bullets(
        [
            "An example of a class carries each of the class's features with that feature's probability, drawn from "
            f"U(0, {settings.max_probability:g}), and noise of its own.",
            f"While an unlearned feature occurs in at least gamma = {settings.gamma} live examples (those with "
            "gradient), the most frequent one is learned; among equals that of the lowest class, then of the lowest "
            "index.",
            f"An example with tau = {settings.tau} learned features is done: its gradient is zero. What is still live "
            "at the end of a stage is memorised through its noise, and its gradient is zero as well.",
            "Data accumulate. `warm` keeps what it has learned and what it has memorised; `cold` forgets both and "
            "starts over on all data so far; `ideal` keeps the features and forgets the memorised noise.",
            f"A test example with {settings.tau} learned features is right, any other is guessed. The accuracy is the "
            "expected one over all test examples, not that of a sample.",
        ]
    )


def _figures(study: Study) -> Html:
    band = " The band is one standard deviation over seeds." if study.settings.seeds > 1 else ""
    blocks = []
    for number, panel in enumerate(study_panels(study)):
        drawn = figures.lines(panel.series, x_label="stage", y_label=panel.title)
        svg = figures.to_svg(drawn, name=f"panel-{number}", description=f"{panel.title} by stage for each method")
        of_what = "at the start of each stage: the proxy for training time" if number == 2 else "after each stage"
        blocks.append(html.figure(svg, f"{panel.title.capitalize()} {of_what}.{band}"))
    return html.side_by_side(*blocks)


def _stepper(study: Study) -> list[Html]:
    settings = study.settings
    width = -(-settings.features // 8)
    stages = min(settings.stages, _LARGEST // (width * settings.examples))
    if stages == 0:
        return [html.paragraph("One stage's examples are too many for this page; lower `--examples` to see them.")]
    resources = files("warmstart.theory")
    data = json.dumps(_stream(study, stages), separators=(",", ":"))
    buttons = "".join(f'<button type="button" data-method="{method}">{method}</button>' for method in METHODS)
    cut = f" Of {settings.stages} stages the page holds the first {stages}." if stages < settings.stages else ""
    return [
        html.paragraph(
            f"The stream of seed {_SEED}.{cut} Bars: in how many live examples each feature occurs; below, whether it "
            "is learned. Squares: examples in the order of arrival, those of earlier stages paler. Step through the "
            "same stage with `warm`, `cold` and `ideal`."
        ),
        Html(
            f"<style>{resources.joinpath('stepper.css').read_text()}</style>\n"
            '<div class="stepper">\n'
            f'<div class="controls" role="group" aria-label="method">{buttons}\n'
            f'<label>Stage <input id="stage" type="range" min="1" max="{stages}" value="1">'
            '<output id="stage-shown" for="stage"></output></label></div>\n'
            '<div class="controls" role="group" aria-label="steps"><button type="button" id="back">Back</button>'
            '<button type="button" id="on">Step</button><button type="button" id="play">Play</button>'
            '<button type="button" id="end">End of stage</button></div>\n'
            '<p class="said" id="said" aria-live="polite"></p>\n'
            '<div><canvas id="features" role="img" aria-label="live examples by feature"></canvas></div>\n'
            '<ul class="keys"><li><i style="background:var(--mark)"></i>occurs in live examples</li>'
            '<li><i style="background:var(--warn)"></i>learned next</li>'
            '<li><i style="background:var(--done)"></i>learned in this stage</li>'
            '<li><i style="background:var(--soft)"></i>learned before</li></ul>\n'
            '<div><canvas id="examples" role="img" aria-label="the state of each example"></canvas></div>\n'
            '<ul class="keys"><li><i style="background:var(--live)"></i><b id="total-live"></b> live</li>'
            '<li><i style="background:var(--done)"></i><b id="total-done"></b> done</li>'
            '<li><i style="background:var(--memorised)"></i><b id="total-memorised"></b> memorised</li></ul>\n'
            '<p id="example"></p>\n</div>\n'
            f'<script type="application/json" id="stream">{data}</script>\n'
            f"<script>{resources.joinpath('stepper.js').read_text()}</script>\n"
            "<noscript><p>Stepping through a stage needs JavaScript.</p></noscript>"
        ),
    ]


def _stream(study: Study, stages: int) -> dict[str, object]:
    """One seed's examples, packed to bits, and each method's steps."""
    settings = study.settings
    data = draw(settings, _SEED)
    seen = stages * settings.examples
    carried = np.zeros((seen, settings.features), dtype=bool)
    for label, of_class in enumerate(data.carried):
        carried[label :: settings.classes] = of_class[:, : len(range(label, seen, settings.classes))].T
    return {
        "classes": settings.classes,
        "features": settings.features,
        "examples": settings.examples,
        "stages": stages,
        "gamma": settings.gamma,
        "tau": settings.tau,
        "keeps": {method: {"features": k.features, "memorised": k.memorised} for method, k in METHODS.items()},
        "carried": base64.b64encode(np.packbits(carried, axis=1).tobytes()).decode("ascii"),
        "steps": {
            method: [
                [[step.label, step.feature, step.count, step.done] for step in outcome.steps]
                for outcome in study.streams[method, _SEED][:stages]
            ]
            for method in METHODS
        },
    }
