"""One run: a method, a seed, and all stages of the stream, saved so that it can be stopped at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from warmstart.diagnostics.measure import Measurement
from warmstart.errors import InputError
from warmstart.methods.lifecycle import checked_state, measured, prepare_, reported
from warmstart.methods.method import Stage
from warmstart.methods.units_and_activations import UnitsOf
from warmstart.processes import Team
from warmstart.runs.grid_folder import GridFolder
from warmstart.runs.key import RunKey
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState
from warmstart.runs.task import StageData, Task, TrainingContext
from warmstart.seeds import derive
from warmstart.training.loop import Progress

SAVE_EVERY = 60.0
"""Seconds after which a stage that is still training is saved."""


@dataclass(frozen=True)
class Event:
    """What has just happened in a run, for the display."""

    key: RunKey
    stage: int
    progress: Progress
    finished_stage: StageResult | None = None


class Run:
    """A run that resumes from its checkpoint."""

    def __init__(self, task: Task, key: RunKey, folder: GridFolder | None, team: Team | None = None) -> None:
        """Load the checkpoint in the folder, or start anew; of a team, the first process saves and loads."""
        self.task, self.key, self._team = task, key, team or Team()
        self.method = task.method(key.method)
        if self._team.size > 1 and self.method.sees_activations:
            raise InputError(f"{key.method} sees activations, which differ between processes: train in one process")
        self._folder = folder
        torch.manual_seed(derive(key.seed, "init", 0))
        self.model = self._drawn()
        self.initial = _values(self.model)
        self.first = self.initial
        """The weights that this network began with: the run's, or a draw that the method has put in their place."""
        self.optimizer = task.make_optimizer(self.model, key)
        self.state = RunState()
        self._units: UnitsOf | None = None
        self._fresh_draws = 0
        """Networks that the method has drawn in this stage."""
        self._latest_draw: dict[str, Tensor] = {}
        """The values of the latest of them, while the method acts."""
        self._load()

    def go_on(self, on_event: Callable[[Event], None]) -> RunState:
        """Train and measure all stages that are left, or until the loss diverges; ``on_event`` may raise to stop it."""
        while not self.state.is_over(self.task.stages):
            row = self._one_stage(on_event)
            on_event(Event(self.key, row.stage, Progress(row.epochs, row.steps, row.train_accuracy), row))
        return replace(self.state, of_method={})  # as large as the network, perhaps, and only training needs it

    def _one_stage(self, on_event: Callable[[Event], None]) -> StageResult:
        number = self.state.next_stage
        data = self.task.stage_data(self.key.seed, number)
        if self._units is None or not self._units.read:
            self._units = UnitsOf(self.model, data.batches, data.forward_loss)
        stage = data.stage(
            number,
            fresh=self._fresh,
            initial=self.initial,
            optimizer=self.optimizer,
            units=self._units,
            state=self.state.of_method,
        )
        if self.state.inside is None:
            self._score_before(data)
            self.state.method_seconds = self._apply_method(stage)
            self.state.diagnoses.pop(number, None)
            for measurement in self.task.diagnose(self.model, replace(stage, initial=self.first), data):
                self._note(number, measurement)
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
            note=partial(self._note, number),
            after_epoch=lambda progress: on_event(Event(self.key, number, progress)),
            save_due=lambda: time.monotonic() - saved > SAVE_EVERY,
            save=save,
        )
        progress = self.task.train(self.model, context)
        found = self.task.measure(measured(self.method, self.model, self.state.of_method), data)
        newly_wrong, newly_right = _changed(self.state.scores, found.scores)
        row = StageResult(
            data=self.task.data,
            model=self.task.model,
            optimizer=self.key.optimizer,
            method=self.key.method,
            seed=self.key.seed,
            stage=number,
            train_examples=data.seen,
            test_accuracy=found.accuracy,
            test_loss=found.loss,
            train_accuracy=progress.accuracy,
            steps=progress.steps,
            epochs=progress.epochs,
            train_seconds=round(progress.seconds, 4),
            method_seconds=round(self.state.method_seconds, 4),
            recalibrated_test_accuracy=found.recalibrated,
            status=progress.status,
            old_accuracy=found.old,
            new_accuracy=found.new,
            newly_wrong=newly_wrong,
            newly_right=newly_right,
            train_joules=math.nan if progress.joules is None else progress.joules,
        )
        self.state.rows.append(row)
        self.state.scores, self.state.test_set = found.scores, data.test_set
        self.state.inside = None
        self._save()
        return row

    def _note(self, stage: int, measured: Measurement) -> None:
        self.state.diagnoses.setdefault(stage, []).append((measured.name, measured.layer, measured.value))

    def _score_before(self, data: StageData) -> None:
        """Score the network of the stage before on this stage's test set, unless it was scored on the same."""
        if self.state.rows and data.test_set != self.state.test_set:
            before = measured(self.method, self.model, self.state.of_method)
            self.state.scores, self.state.test_set = self.task.scores(before, data), data.test_set

    def _apply_method(self, stage: Stage) -> float:
        """Apply the method to the new data; its cost in seconds."""
        if stage.number == 1:
            return 0.0
        stage.generator.manual_seed(derive(self.key.seed, "method", stage.number))
        self._fresh_draws = 0
        began = time.perf_counter()
        self.state.reports[stage.number] = reported(self.method, self.model, stage).to_dict()
        seconds = time.perf_counter() - began
        draw, self._latest_draw = self._latest_draw, {}
        if draw and all(torch.equal(weight, draw[name]) for name, weight in self.model.named_parameters()):
            self.first, self.state.redrawn = draw, (stage.number, self._fresh_draws)
        return seconds

    def _fresh(self) -> nn.Module:
        """A new network, drawn differently at each call."""
        self._fresh_draws += 1
        model = self._drawn_as(self.state.next_stage, self._fresh_draws)
        self._latest_draw = _values(model)
        return model

    def _drawn_as(self, stage: int, number: int) -> nn.Module:
        torch.manual_seed(derive(self.key.seed, "init", stage, number))
        return self._drawn()

    def _drawn(self) -> nn.Module:
        """A network from PyTorch's global random state, prepared for the method."""
        model = self.task.make_model()
        prepare_(self.method, model)
        return model

    def _save(self) -> None:
        if self._folder is None:
            return
        checked_state(self.method, self.model, self.state.of_method)
        over = self.state.is_over(self.task.stages)
        self._folder.save(self.key, self.state, model=self.model, optimizer=self.optimizer, over=over)

    def _load(self) -> None:
        saved = self._team.on_first(lambda: None if self._folder is None else self._folder.load(self.key))
        if saved is None:
            return
        if saved.model_state:
            self.model.load_state_dict(saved.model_state)
        if self.optimizer is not None and saved.optimizer_state is not None:
            try:
                self.optimizer.load_state_dict(saved.optimizer_state)
            except ValueError as error:  # groups of another size: which parameters Muon takes has changed
                raise InputError(
                    f"run {self.key}: its optimizer was saved with other groups; choose another --out"
                ) from error
        self.state = RunState.from_saved(saved.metadata, saved.tensors)
        if self.state.redrawn is not None:
            self.first = _values(self._drawn_as(*self.state.redrawn))
        device = next(self.model.parameters()).device
        self.state.of_method = {name: tensor.to(device) for name, tensor in self.state.of_method.items()}


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _changed(before: Tensor | None, now: Tensor | None) -> tuple[float, float]:
    """The shares of test examples that became wrong, and right; NaN unless each is known to be one of them."""
    if before is None or now is None or before.shape != now.shape:
        return math.nan, math.nan
    was, is_ = before == 1, now == 1
    if not (was | (before == 0)).all() or not (is_ | (now == 0)).all():
        return math.nan, math.nan
    return (was & ~is_).double().mean().item(), (is_ & ~was).double().mean().item()
