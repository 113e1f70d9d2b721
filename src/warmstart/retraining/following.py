"""What follows the end of a stage: exports, a model registry, the user's hooks, the metrics for Prometheus.

They are told at least once: a kill between the stage's end and the last of them lets the next call tell them again.
What fails here is said, and undoes nothing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warmstart.importing import describe
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.index import Index, StageRow
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder
from warmstart.storage.atomic import write_text


@dataclass(frozen=True)
class Followers:
    """Those who are told how a stage ended."""

    state: StateFolder
    index: Index
    settings: NightSettings
    chronicle: Chronicle

    def tell(self, row: StageRow) -> None:
        """Tell them all of a stage, write that down, and keep a copy of the index."""
        settings = self.settings
        if row.state == "promoted":
            if settings.export is not None:
                self._attempt("export", row, self._export)
            if settings.registry is not None:
                self._attempt("registry", row, self._register)
        self.run_hook(row.state == "promoted", row.number, row.reason)
        with self.index.transaction():
            self.index.change_stage(row.number, followed=1)
            self.index.add_events(self.chronicle.drain())
        self._attempt("copy", row, lambda _: self.state.copy_index())
        self.write_metrics()

    def _attempt(self, what: str, row: StageRow, work: Callable[[StageRow], None]) -> None:
        try:
            work(row)
        except Exception as error:  # of any library; the model is in service all the same
            self.chronicle.say("follower failed", f"{what}: {describe(error)}", row.number)

    def _export(self, row: StageRow) -> None:
        from warmstart.serving.export import SUFFIXES, export
        from warmstart.serving.served import load

        assert self.settings.export is not None
        folder = self.state.model(row.number)
        file = folder / f"model{SUFFIXES[self.settings.export]}"
        export(load(folder, "cpu"), self.settings.export, file)
        self.chronicle.say("exported", f"exported to {file}", row.number)

    def _register(self, row: StageRow) -> None:
        from warmstart.serving.registry import follow

        name = self.state.path.resolve().name
        version = follow(self.state.model(row.number), name)
        self.chronicle.say("registered", f"version {version} of {name} in the registry is current", row.number)

    def after_rollback(self, row: StageRow) -> None:
        """An earlier model is in service again."""
        if self.settings.registry is not None:
            self._attempt("registry", row, self._register)
        with self.index.transaction():
            self.index.add_events(self.chronicle.drain())
        self._attempt("copy", row, lambda _: self.state.copy_index())
        self.write_metrics()

    def run_hook(self, promoted: bool, stage: int | None, reason: str) -> None:
        """Run the user's command, which may take as long as it likes."""
        command = self.settings.on_promoted if promoted else self.settings.on_failed
        if command is None:
            return
        current = self.index.current
        told = {
            "WARMSTART_STATE": str(self.state.path.absolute()),
            "WARMSTART_STAGE": "" if stage is None else str(stage),
            "WARMSTART_RESULT": "promoted" if promoted else "failed",
            "WARMSTART_REASON": reason,
            "WARMSTART_MODEL": "" if current is None else str(self.state.model(current).absolute()),
        }
        try:
            code = subprocess.run(command, shell=True, env={**os.environ, **told}, check=False).returncode
        except (OSError, ValueError) as error:
            self.chronicle.say("hook failed", f"the hook '{command}' cannot be started: {error}", stage)
            return
        if code:
            self.chronicle.say("hook failed", f"the hook '{command}' ended with {code}", stage)

    def write_metrics(self) -> None:
        """Write the metrics for Prometheus' textfile collector, whole or not at all."""
        if self.settings.metrics is None:
            return
        file = Path(self.settings.metrics)
        try:
            write_text(file, prometheus(self.index))
        except OSError as error:
            self.chronicle.say("follower failed", f"--metrics {file}: {error.strerror}")


def prometheus(index: Index) -> str:
    """What a state has to report, in Prometheus' text format."""
    stages, current = index.stages(), index.current
    last = stages[-1] if stages else None
    numbers: list[tuple[str, str, float | None]] = [
        ("stages_promoted", "Stages whose candidate went into service", _count(stages, "promoted")),
        ("stages_rejected", "Stages whose candidate did not", _count(stages, "rejected")),
        ("current_stage", "The stage whose model is in service", current),
        ("quarantined", "Files and rows that were left out so far", len(index.quarantine())),
    ]
    if last is not None:
        measured = index.metrics(last.number)
        runs = index.runs(last.number).values()
        numbers += [
            ("last_stage", "The newest stage", last.number),
            ("last_promoted", "1 if the newest stage was promoted", float(last.state == "promoted")),
            ("last_ended_seconds", "When the newest stage ended, in seconds since 1970", last.ended),
            ("examples", "Examples that the newest stage was trained on", last.seen),
            ("accuracy", "The newest candidate's accuracy on held-out examples", measured.get("accuracy")),
            ("current_accuracy", "Accuracy of the network before it, on the same", measured.get("current_accuracy")),
            ("churn", "Share of held-out examples that became wrong", measured.get("churn")),
            ("steps", "Optimizer updates of the newest stage", sum(run["steps"] for run in runs)),
            ("train_seconds", "Seconds that training it took", sum(run["train_seconds"] for run in runs)),
        ]
    lines = []
    for name, text, value in numbers:
        if value is not None:
            full = f"warmstart_retrain_{name}"
            lines += [f"# HELP {full} {text}.", f"# TYPE {full} gauge", f"{full} {value:.10g}"]
    return "\n".join(lines) + "\n"


def _count(stages: list[StageRow], state: str) -> int:
    return sum(row.state == state for row in stages)
