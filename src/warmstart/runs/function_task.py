"""A comparison over a user's own training and evaluation functions: any task, any metric."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from warmstart.batches import cut_from_newest
from warmstart.diagnostics.measure import Measurement
from warmstart.errors import InputError
from warmstart.losses import ForwardLoss
from warmstart.methods.lifecycle import Updates
from warmstart.methods.method import Method, Stage
from warmstart.methods.units_and_activations import joined_activations
from warmstart.network import require_module
from warmstart.runs.key import RunKey
from warmstart.runs.task import LARGEST_BATCH, Measured, StageData, TrainingContext
from warmstart.seeds import derive
from warmstart.streams.stream import Stream
from warmstart.training.loop import Progress


@dataclass(frozen=True, eq=False)
class TrainingStage:
    """What a user's ``train`` is given beside the network."""

    number: int
    """From 1."""
    seed: int
    data: Dataset[Any]
    """All examples seen so far, oldest first."""
    new: Dataset[Any]
    """The examples that arrived with this stage."""
    optimizer: torch.optim.Optimizer | None
    """From ``make_optimizer``; the method keeps or resets its state. None: make one in ``train``."""
    after_backward: Callable[[], None]
    """Call it after each ``backward()``, before the update: some methods change gradients."""
    after_step: Callable[[], None]
    """Call it after each update: some methods change weights."""


@dataclass(frozen=True)
class FunctionTask:
    """A stream of data sets and the functions that train and measure."""

    stream: Callable[[int], Stream[Dataset[Any]]]
    """Seed -> its arrivals."""
    methods: Mapping[str, Method]
    factory: Callable[[], nn.Module]
    optimizer_factory: Callable[[nn.Module], torch.optim.Optimizer] | None
    train_function: Callable[[nn.Module, TrainingStage], Any]
    evaluate_function: Callable[[nn.Module], Any]
    forward_loss: ForwardLoss
    collate: Callable[[list[Any]], Any] = default_collate
    micro_batch_size: int | None = None
    data: str = "custom"
    model: str = ""
    stages: int = 0

    def method(self, name: str) -> Method:
        """The method of that name in results.csv."""
        return self.methods[name]

    def make_model(self) -> nn.Module:
        """Draw a network from PyTorch's global random state."""
        model = self.factory()
        require_module(model, "what make_model returns")
        return model

    def make_optimizer(self, model: nn.Module, key: RunKey) -> torch.optim.Optimizer | None:
        """The optimizer that lives as long as the run, if the user gave one."""
        if self.optimizer_factory is None:
            return None
        optimizer = self.optimizer_factory(model)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(f"make_optimizer returned {_described(optimizer)}; it must return a torch.optim.Optimizer")
        return optimizer

    def stage_data(self, seed: int, number: int) -> StageData:
        """The stage of that number in the stream of that seed."""
        arrival = self.stream(seed).arrival(number)
        seen: Any = arrival.train
        new = len(arrival.new)  # type: ignore[arg-type]  # as_dataset has checked it

        def collated(chosen: range) -> Any:
            return self.collate([seen[i] for i in chosen])

        return StageData(
            seen=len(seen),
            new=new,
            batches=lambda size: cut_from_newest(len(seen), size or min(new, LARGEST_BATCH), collated),
            forward_loss=self.forward_loss,
            micro_batch_size=self.micro_batch_size,
            examples=(seen, arrival.new),
        )

    def train(self, model: nn.Module, context: TrainingContext) -> Progress:
        """Call the user's training function; raise InputError unless it lets the method act."""
        calls = {"after_backward": 0, "after_step": 0}
        method, stage = context.method, context.stage
        updates = Updates(method, stage)

        def after_backward() -> None:
            calls["after_backward"] += 1
            updates.after_backward(model)
            joined.complete = True

        def after_step() -> None:
            calls["after_step"] += 1
            updates.after_step(model)
            joined.clear()

        seen, new = context.data.examples
        given = TrainingStage(
            stage.number, context.seed, seen, new, stage.optimizer, after_backward=after_backward, after_step=after_step
        )
        torch.manual_seed(derive(context.seed, "order", stage.number))
        stage.generator.manual_seed(derive(context.seed, "noise", stage.number))
        began = time.perf_counter()
        with ExitStack() as stack:
            joined = joined_activations(stack, method, model, stage)
            progress = _progress(self.train_function(model, given), time.perf_counter() - began)
        if method.acts_on_updates and not all(calls.values()):
            raise InputError(
                f"method {method} acts on every update: train must call stage.after_backward() after each "
                "backward() and stage.after_step() after each update"
            )
        context.after_epoch(progress)
        return progress

    def measure(self, model: nn.Module, data: StageData) -> Measured:
        """Call the user's evaluation function, without gradients."""
        with torch.no_grad():
            score = self.evaluate_function(model)
        if isinstance(score, (int, float)) and not isinstance(score, bool):
            return Measured(float(score))
        try:
            given = torch.as_tensor(score).detach().cpu()
            scores = torch.empty(0) if given.is_complex() else given.double()
        except (TypeError, ValueError, RuntimeError):
            scores = torch.empty(0)
        if scores.numel() == 0 or scores.dim() > 1:
            raise InputError(
                f"evaluate returned {_described(score)}; it must return a number, or one score for each test example"
            )
        return Measured(scores.mean().item(), scores=scores.float() if scores.dim() == 1 else None)

    def scores(self, model: nn.Module, data: StageData) -> Tensor | None:
        """Each test example's score, if the user's evaluation function gives them."""
        return self.measure(model, data).scores

    def diagnose(self, model: nn.Module, stage: Stage, data: StageData) -> Sequence[Measurement]:
        """Nothing: measures are for images."""
        return ()


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of the shape {tuple(value.shape)}"
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.60}"


def _progress(result: Any, seconds: float) -> Progress:
    """What ``train`` returned: the number of steps, or a mapping; it took so long unless it says otherwise."""
    if isinstance(result, Mapping):
        known = {"steps", "epochs", "train_accuracy", "seconds"}
        if "steps" not in result or not set(result) <= known:
            raise InputError(f"train returned the keys {sorted(result)}; it may return {sorted(known)}, steps always")
        return Progress(
            epochs=int(result.get("epochs", 0)),
            steps=int(result["steps"]),
            accuracy=float(result.get("train_accuracy", math.nan)),
            seconds=float(result.get("seconds", seconds)),
            joules=None,
            status="done",
        )
    if isinstance(result, int) and not isinstance(result, bool) and result >= 0:
        return Progress(steps=result, accuracy=math.nan, seconds=seconds, joules=None, status="done")
    raise InputError(f"train returned {_described(result)}; it must return its number of optimizer updates")
