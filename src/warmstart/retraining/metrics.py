"""The metrics for Prometheus' textfile collector: what a state has to report, and how the last call ended."""

from __future__ import annotations

from collections.abc import Iterable

from warmstart.retraining.index import Index, StageRow

Number = tuple[str, str, float | None]
"""A name, what it is, and its value; None where there is none."""


def of_state(index: Index) -> list[Number]:
    """What the index says."""
    stages, current = index.stages(), index.current
    last = stages[-1] if stages else None
    behind = (index.metrics(row.number).get("behind_cold") for row in reversed(stages))
    numbers: list[Number] = [
        ("stages_promoted", "Stages whose candidate went into service", _count(stages, "promoted")),
        ("stages_rejected", "Stages whose candidate did not", _count(stages, "rejected")),
        ("current_stage", "The stage whose model is in service", current),
        ("files_present", "Files of the data folder when it was read last", len(index.files())),
        ("quarantined", "Files and rows that were left out so far", len(index.quarantine())),
        ("left_out", "Files and rows that lie there still and cannot be read", len(index.left_out())),
        (
            "examples_waiting",
            "Examples that came after the stage in service, and count as new",
            sum(row.arrived for row in stages if row.number > (current or 0)),
        ),
        (
            "accuracy_in_service",
            "Held-out accuracy of the model in service when it was promoted",
            None if current is None else index.metrics(current).get("accuracy"),
        ),
        (
            "behind_cold",
            "1 if the warm line had fallen behind when it was compared with training from scratch last",
            next((value for value in behind if value is not None), None),
        ),
    ]
    if last is None:
        return numbers
    measured = index.metrics(last.number)
    runs = index.runs(last.number).values()
    return [
        *numbers,
        ("last_stage", "The newest stage", last.number),
        ("last_promoted", "1 if the newest stage was promoted", float(last.state == "promoted")),
        ("last_ended_seconds", "When the newest stage ended, in seconds since 1970", last.ended),
        ("examples", "Examples that the newest stage was trained on", last.seen),
        ("accuracy", "The newest candidate's accuracy on held-out examples", measured.get("accuracy")),
        ("current_accuracy", "Accuracy of the network before it, on the same", measured.get("current_accuracy")),
        (
            "bar_difference",
            "The newest candidate's accuracy less that of the best so far",
            measured.get("bar_difference"),
        ),
        ("churn", "Share of held-out examples that became wrong", measured.get("churn")),
        ("steps", "Optimizer updates of the newest stage", sum(run["steps"] for run in runs)),
        ("train_seconds", "Seconds that training it took", sum(run["train_seconds"] for run in runs)),
    ]


def prometheus(numbers: Iterable[Number], state: str) -> str:
    """Numbers of a state, which is their label, in Prometheus' text format."""
    label = state.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    lines = []
    for name, text, value in numbers:
        if value is not None:
            full = f"warmstart_retrain_{name}"
            lines += [f"# HELP {full} {text}.", f"# TYPE {full} gauge", f'{full}{{state="{label}"}} {value:.10g}']
    return "\n".join(lines) + "\n"


def _count(stages: list[StageRow], state: str) -> int:
    return sum(row.state == state for row in stages)
