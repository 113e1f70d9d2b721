"""One run: a method, a seed, and all stages of the stream, saved so that it can be stopped at any moment."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.methods.method import Stage
from warmstart.processes import Team
from warmstart.runs.results import Results, StageResult
from warmstart.runs.task import Task, TrainingContext
from warmstart.seeds import derive
from warmstart.storage import checkpoint
from warmstart.training.loop import Progress

SAVE_EVERY = 60.0
"""Seconds after which a stage that is still training is saved."""
_FILE = "checkpoint.safetensors"


Saved = dict[str, Any]
"""What `saved_runs` gives of a run: rows, reports and scores."""


@dataclass(frozen=True)
class RunKey:
    """Which run of a grid."""

    method: str
    seed: int
    optimizer: str = ""

    def folder(self, out: Path) -> Path:
        """Where the run's checkpoint lies.

        Args:
            out: The comparison's folder.

        Returns:
            A folder whose name any file system can hold.
        """
        name = "".join(c if c.isalnum() or c in "-_.=," else "_" for c in str(self))
        return out / "runs" / name

    def __str__(self) -> str:
        """The run's name; without an optimizer where training makes its own."""
        return "-".join(filter(None, (self.optimizer, self.method, f"seed{self.seed}")))


@dataclass(frozen=True)
class Event:
    """What has just happened in a run, for the display."""

    key: RunKey
    stage: int
    progress: Progress
    finished_stage: StageResult | None = None


@dataclass
class _State:
    """All that a run needs in order to go on, beside weights and optimizer."""

    rows: list[StageResult]
    reports: dict[int, dict[str, Any]]
    scores: Tensor | None
    """Of the last stage that is done."""
    inside: Progress | None = None
    """How far the next stage has come, if it was saved while training."""
    method_seconds: float = 0.0
    """What the method cost in the stage that is inside."""

    @property
    def next_stage(self) -> int:
        return len(self.rows) + 1

    @property
    def diverged(self) -> bool:
        return bool(self.rows) and self.rows[-1].status == "diverged"


class Run:
    """A run that goes on from wherever it was stopped."""

    def __init__(self, task: Task, key: RunKey, out: Path | None, team: Team | None = None) -> None:
        """Load what is saved, or start anew.

        Args:
            task: What is trained.
            key: Which run of the grid.
            out: The comparison's folder; None keeps nothing.
            team: The processes that train it together; the first one keeps and loads what is saved.
        """
        self.task, self.key, self._team = task, key, team or Team()
        self.method = task.method(key.method)
        self._folder = key.folder(out) if out is not None else None
        self._fresh_draws = 0
        torch.manual_seed(derive(key.seed, "init", 0))
        self.model = task.make_model()
        self.initial = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.optimizer = task.make_optimizer(self.model, key.optimizer)
        self.state = _State([], {}, None)
        self._load()

    def go_on(self, on_event: Callable[[Event], None]) -> Saved:
        """Train and measure all stages that are left.

        Args:
            on_event: Told of every epoch and stage; may raise to stop the run.

        Returns:
            What `read_results` reads: rows, scores and reports. A run ends early where its loss diverges.
        """
        while self.state.next_stage <= self.task.stages and not self.state.diverged:
            row = self._one_stage(on_event)
            on_event(Event(self.key, row.stage, Progress(row.epochs, row.steps, row.train_accuracy), row))
        return {**_to_metadata(self.state), "scores": self.state.scores}

    def _one_stage(self, on_event: Callable[[Event], None]) -> StageResult:
        number = self.state.next_stage
        self._fresh_draws = 0
        data = self.task.stage_data(self.key.seed, number)
        stage = data.stage(number, fresh=self._fresh, initial=self.initial, optimizer=self.optimizer)
        if self.state.inside is None:
            self.state.method_seconds = self._apply_method(stage)
        saved = time.monotonic()

        def save(progress: Progress) -> None:
            nonlocal saved
            self.state.inside = progress
            self._save()
            saved = time.monotonic()

        context = TrainingContext(
            stage,
            data,
            self.method,
            self.key.seed,
            start=self.state.inside or Progress(),
            team=self._team,
            after_epoch=lambda progress: on_event(Event(self.key, number, progress)),
            save_due=lambda: time.monotonic() - saved > SAVE_EVERY,
            save=save,
        )
        progress = self.task.train(self.model, context)
        measured = self.task.measure(self.model, data)
        row = StageResult(
            data=self.task.data,
            model=self.task.model,
            optimizer=self.key.optimizer,
            method=self.key.method,
            seed=self.key.seed,
            stage=number,
            train_examples=data.seen,
            test_accuracy=measured.accuracy,
            test_loss=measured.loss,
            train_accuracy=progress.accuracy,
            steps=progress.steps,
            epochs=progress.epochs,
            train_seconds=round(progress.seconds, 4),
            method_seconds=round(self.state.method_seconds, 4),
            recalibrated_test_accuracy=measured.recalibrated,
            status=progress.status,
        )
        self.state.rows.append(row)
        self.state.scores = measured.scores
        self.state.inside = None
        self._save()
        return row

    def _apply_method(self, stage: Stage) -> float:
        """What the method does about new data; its cost in seconds."""
        if stage.number == 1:
            return 0.0
        stage.generator.manual_seed(derive(self.key.seed, "method", stage.number))
        began = time.perf_counter()
        report = self.method.on_new_data(self.model, stage)
        self.state.reports[stage.number] = report.to_dict()
        return time.perf_counter() - began

    def _fresh(self) -> nn.Module:
        """Another network, each time another draw."""
        self._fresh_draws += 1
        torch.manual_seed(derive(self.key.seed, "init", self.state.next_stage, self._fresh_draws))
        return self.task.make_model()

    def _save(self) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save(
            self._folder / _FILE,
            model=self.model,
            optimizer=self.optimizer,
            metadata=_to_metadata(self.state),
            tensors={} if self.state.scores is None else {"scores": self.state.scores},
        )

    def _load(self) -> None:
        here = self._folder is not None and (self._folder / _FILE).exists()
        saved = self._team.tell(checkpoint.load(self._folder / _FILE) if here and self._folder else None)
        if saved is None:
            return
        self.model.load_state_dict(saved.model_state)
        if self.optimizer is not None and saved.optimizer_state is not None:
            self.optimizer.load_state_dict(saved.optimizer_state)
        self.state = _from_metadata(saved.metadata, saved.tensors.get("scores"))


def _to_metadata(state: _State) -> dict[str, Any]:
    return {
        "rows": [dataclasses.asdict(row) for row in state.rows],
        "reports": {str(stage): report for stage, report in state.reports.items()},
        "inside": None if state.inside is None else dataclasses.asdict(state.inside),
        "method_seconds": state.method_seconds,
    }


def _from_metadata(metadata: dict[str, Any], scores: Tensor | None) -> _State:
    return _State(
        rows=[StageResult(**row) for row in metadata["rows"]],
        reports={int(stage): report for stage, report in metadata["reports"].items()},
        scores=scores,
        inside=None if metadata["inside"] is None else Progress(**metadata["inside"]),
        method_seconds=metadata["method_seconds"],
    )


def saved_runs(keys: list[RunKey], out: Path) -> dict[RunKey, Saved]:
    """What has been saved of some runs, read without their weights.

    Args:
        keys: Which runs.
        out: The comparison's folder.

    Returns:
        For each run that has a checkpoint, what `read_results` reads.
    """
    found = {}
    for key in keys:
        file = key.folder(out) / _FILE
        if file.exists():
            tensors = checkpoint.read_tensors(file, "tensors.")
            found[key] = {**checkpoint.read_metadata(file), "scores": tensors.get("scores")}
    return found


def unfinished(keys: list[RunKey], runs: dict[RunKey, Saved], stages: int) -> list[RunKey]:
    """Find the runs that have anything left to do.

    Args:
        keys: All runs.
        runs: Run -> what `saved_runs` gives.
        stages: Stages of a complete run.

    Returns:
        Those that have not come to their last stage, nor diverged.
    """
    last = {key: saved["rows"][-1] for key, saved in runs.items() if saved["rows"]}
    over = {key for key, row in last.items() if row["stage"] == stages or row["status"] == "diverged"}
    return [key for key in keys if key not in over]


def read_results(config: dict[str, Any], runs: dict[RunKey, Saved]) -> Results:
    """Put runs together.

    Args:
        config: What config.yaml holds.
        runs: Run -> what `saved_runs` gives.

    Returns:
        All rows in order of method, seed and stage, the last stage's scores, and the methods' reports.
    """
    results = Results(
        config, metric=config.get("metric", "accuracy"), higher_is_better=config.get("higher_is_better", True)
    )
    for key, saved in runs.items():
        state = _from_metadata(saved, saved["scores"])
        results.rows += state.rows
        results.reports |= {(key.method, key.seed, stage): report for stage, report in state.reports.items()}
        if state.scores is not None:
            results.scores[key.method, key.seed] = state.scores.float().numpy()
    return results
