"""STATE/report.html: the history of a state on one self-contained page."""

from __future__ import annotations

from pathlib import Path

from warmstart.reporting import figures, html
from warmstart.reporting.html import Html
from warmstart.retraining.history import HEADS, Line, history
from warmstart.retraining.index import Index
from warmstart.retraining.state import StateFolder
from warmstart.storage.atomic import write_text
from warmstart.wording import counted


def write_report(state: StateFolder, index: Index) -> Path:
    """Write the report; its path."""
    lines = history(index)
    current = index.current
    served = next((line for line in lines if line.in_service), None)
    lead = f"{counted(len(lines), 'stage')}, {lines[-1].row.seen:,} examples so far" if lines else "no stage yet"
    body = [
        html.paragraph(_verdict(served), kind="verdict"),
        html.section("Stages", _figures(lines), html.table(HEADS, [line.cells() for line in lines], caption=_CAPTION)),
        html.section("Why candidates were rejected", html.bullets(_reasons(lines))),
        html.section("From scratch, beside", html.bullets(_cold(lines))),
        html.section("The network", _facts(index)),
        html.section("What was left out", _left_out(index)),
        html.section("What was said", html.bullets(f"{kind}: {text}" for _, kind, text, _ in index.events()[-_SAID:])),
    ]
    file = state.path / "report.html"
    write_text(file, html.page(f"warmstart retrain: {state.path.name}", lead, body, footer=f"current: stage {current}"))
    return file


_CAPTION = "Accuracies and churn in percent, gains in points, on examples that are never trained on; * is in service."
_SAID = 200


def _verdict(served: Line | None) -> str:
    if served is None:
        return "No model is in service yet."
    accuracy = served.metrics.get("accuracy")
    shown = "" if accuracy is None else f" with {accuracy:.1%} on held-out examples when it was promoted"
    return f"The model of stage {served.row.number} is in service{shown}."


def _figures(lines: list[Line]) -> Html:
    measured = [line for line in lines if line.metrics.get("accuracy") is not None]
    if not measured:
        return Html("")
    series = [_series("candidate", measured, "accuracy")]
    for name, key in (("current, before", "current_accuracy"), ("from scratch", "cold_accuracy")):
        if any(line.metrics.get(key) is not None for line in measured):
            series.append(_series(name, [line for line in measured if line.metrics.get(key) is not None], key))
    accuracy = figures.lines(series, x_label="stage", y_label="held-out accuracy, %")
    steps = figures.Series("steps", [line.row.number for line in lines], [float(line.steps) for line in lines])
    cost = figures.lines([steps], x_label="stage", y_label="steps of the stage")
    return html.side_by_side(
        html.figure(
            figures.to_svg(accuracy, name="accuracy", description="held-out accuracy by stage"),
            "Accuracy on the held-out examples there were then, of the candidate and of the network before it.",
        ),
        html.figure(
            figures.to_svg(cost, name="steps", description="steps by stage"),
            "Optimizer updates of each stage, a second training with a smaller rate included.",
        ),
    )


def _series(name: str, lines: list[Line], key: str) -> figures.Series:
    values = [100 * (line.metrics.get(key) or 0.0) for line in lines]
    return figures.Series(name, [line.row.number for line in lines], values)


def _reasons(lines: list[Line]) -> list[str]:
    return [f"Stage {line.row.number}: {line.row.reason}" for line in lines if line.row.state == "rejected"]


def _cold(lines: list[Line]) -> list[str]:
    said = []
    for line in lines:
        cold, steps = (line.metrics.get(name) for name in ("cold_accuracy", "cold_steps"))
        if cold is not None and steps is not None:
            behind = "has fallen behind" if line.metrics.get("behind_cold") else "has not fallen behind"
            said.append(f"Stage {line.row.number}: {cold:.1%} in {steps:,.0f} steps; the warm line {behind}.")
    return said


def _facts(index: Index) -> Html:
    fixed = index.fact("fixed") or {}
    rows = [(name.replace("_", " "), str(value)) for name, value in fixed.items()]
    return html.table(
        ("what", "value"),
        [*rows, ("classes", ", ".join(index.classes()))],
        caption="What the first stage has fixed, and the classes so far.",
        text=True,
    )


def _left_out(index: Index) -> Html:
    rows = [(path, str(stage), reason) for stage, path, reason in index.quarantine()]
    caption = "Files and rows that could not be read; corrected, they arrive with the next call."
    return html.table(("path", "stage", "why"), rows, caption=caption, text=True) if rows else Html("")
