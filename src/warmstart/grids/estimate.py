"""What a grid on images will cost: steps from epochs that are known or guessed, seconds from a few measured steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from warmstart.diagnostics.diagnose import diagnose
from warmstart.diagnostics.subject import CURVED, CURVED_PIECE
from warmstart.errors import InputError
from warmstart.losses import training_loss
from warmstart.runs.image_task import MEASURED, ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Event, Run
from warmstart.runs.state import RunState
from warmstart.runs.task import LARGEST_BATCH
from warmstart.training.devices import computing_with, find_device, too_little_memory
from warmstart.training.evaluation import evaluate
from warmstart.training.loop import Hooks, Progress, train_stage
from warmstart.wording import counted

MEASURED_BATCHES = 4
"""Batches of an epoch; the first epoch warms up, the second is timed."""


@dataclass(frozen=True)
class Cost:
    """What the runs of one method and optimizer will take."""

    optimizer: str
    method: str
    runs: int
    steps: float
    seconds: float
    """With one run at a time."""


class Estimator:
    """Measures a few steps of each optimizer, and estimates costs from them."""

    def __init__(
        self, task: ImageTask, optimizers: Sequence[str], threads: int, epochs_of: Callable[[RunKey], float]
    ) -> None:
        """Measure with ``threads`` threads; ``epochs_of`` says how many a stage of a run takes.

        Raises:
            InputError: If a single run does not fit into the GPU's memory.
        """
        self._task, self._epochs_of = task, epochs_of
        self.peak_memory = 0
        """Bytes that one run takes on a GPU, its data included; on a CPU, that this process has taken so far."""
        device = find_device(task.device)
        if device.type == "cuda":
            torch.cuda.init()  # without it the allocator's statistics raise an error
            torch.cuda.reset_peak_memory_stats(device)
        try:
            # By default the state of all GPUs would be kept, which takes memory on each.
            with torch.random.fork_rng([device] if device.type == "cuda" else []), computing_with(threads):
                self.seconds_a_step = {name: _seconds_a_step(task, name) for name in optimizers}
                self._seconds_to_evaluate = _seconds_to_evaluate(task)
                self._seconds_to_diagnose = _seconds_to_diagnose(task) if task.diagnosed else 0.0
        except torch.OutOfMemoryError as error:
            raise InputError(f"{task.model}: {too_little_memory(error)}") from None
        if device.type == "cuda":
            self.peak_memory = torch.cuda.max_memory_allocated(device)
        else:
            self.peak_memory = _resident_memory()

    def check_memory(self, jobs: int) -> None:
        """Raise InputError unless ``jobs`` runs at a time fit into the GPU's memory."""
        device = find_device(self._task.device)
        if device.type == "cuda" and self.peak_memory * jobs > torch.cuda.get_device_properties(device).total_memory:
            raise InputError(_memory_message(self._task, device, self.peak_memory, jobs))

    def costs(self, left: Sequence[RunKey], done: Mapping[RunKey, RunState]) -> list[Cost]:
        """The costs by optimizer and method of unfinished runs, given what is done of them."""
        rows: dict[tuple[str, str], Cost] = {}
        for key in left:
            place = key.optimizer, key.method
            before = rows.get(place, Cost(*place, 0, 0.0, 0.0))
            steps, seconds = self._one_run(key, len(done[key].rows) if key in done else 0)
            rows[place] = Cost(*place, before.runs + 1, before.steps + steps, before.seconds + seconds)
        return list(rows.values())

    def _one_run(self, key: RunKey, done: int) -> tuple[float, float]:
        recipe, seen = self._task.recipe, self._task.seen
        steps, seconds = 0.0, 0.0
        for number, (examples, new) in list(enumerate(zip(seen, self._task.arriving, strict=True), start=1))[done:]:
            fixed = recipe.of_stage(number).epochs
            epochs = float(fixed) if fixed is not None else min(self._epochs_of(key), recipe.max_epochs)
            of_stage = epochs * math.ceil(examples / recipe.batch_size)
            steps += of_stage
            seconds += of_stage * self.seconds_a_step[key.optimizer]
            seconds += self._seconds_to_evaluate + self._seconds_to_diagnose
            if number > 1:
                read = self._task.method(key.method).examples_read(examples, min(new, LARGEST_BATCH))
                seconds += read / recipe.batch_size * self.seconds_a_step[key.optimizer]
        return steps, seconds


def in_all(costs: Sequence[Cost], jobs: int, how: str = "", *, least: bool = False) -> str:
    """Costs in one sentence; ``how`` says how several runs compute at a time, where it is not ``jobs``."""
    runs, steps, seconds = (sum(getattr(cost, what) for cost in costs) for what in ("runs", "steps", "seconds"))
    at_a_time = f", {jobs} at a time" if jobs > 1 else how
    about = "at least about" if least else "about"
    return f"{counted(runs, 'run')} left, {about} {steps:,.0f} steps, {duration(seconds / jobs)}{at_a_time}"


def measured_epochs(task: ImageTask, key: RunKey, seconds: float) -> tuple[float, bool]:
    """Epochs that a run's first stage takes, and whether it ended within so many seconds."""
    if task.recipe.epochs is not None:
        return float(task.recipe.epochs), True
    began, last = time.monotonic(), 0

    def watch(event: Event) -> None:
        nonlocal last
        last = event.progress.epochs
        if event.finished_stage is not None or time.monotonic() - began > seconds:
            raise _EnoughError(event.finished_stage is not None)

    try:
        with torch.random.fork_rng(devices=[]):
            Run(task, key, None).go_on(watch)
    except _EnoughError as enough:
        return float(last), bool(enough.args[0])
    return float(last), True


class _EnoughError(Exception):
    """All that was to be measured is measured."""


def _resident_memory() -> int:
    """Bytes of memory that this process has taken at most; 0 where nothing tells."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _seconds_a_step(task: ImageTask, optimizer: str) -> float:
    """Seconds of a training step, measured with the training engine on the first images of the data."""
    model = task.make_model()
    wanted = min(MEASURED_BATCHES * task.recipe.batch_size, task.seen[-1])
    examples = task.training_examples(slice(0, wanted))
    recipe = task.training_recipe.model_copy(update={"epochs": 2, "schedule": "constant", "warmup": 0})
    after: list[Progress] = []
    optimizer_ = task.make_optimizer(model, RunKey("warm", 0, optimizer))
    hooks = Hooks(after_epoch=after.append)
    train_stage(model, optimizer_, examples, recipe, seed_of=lambda epoch, segment: epoch, hooks=hooks)
    if len(after) < 2:  # it diverged in the first epoch, whose steps take as long
        return after[0].seconds / after[0].steps
    return (after[1].seconds - after[0].seconds) / (after[1].steps - after[0].steps)


def _seconds_to_evaluate(task: ImageTask) -> float:
    """Seconds to measure a network on the test set as it is, and again with recalibrated batch-norm statistics."""
    model = task.make_model()
    some = task.training_examples(slice(0, 500))
    evaluate(model, some)
    began = time.perf_counter()
    evaluate(model, some)
    seconds: float = (time.perf_counter() - began) / len(some)
    trained = task.seen[-1] / 2
    return seconds * (2 * task.tested(0, task.stages) + trained + min(2 * MEASURED, trained))


def _seconds_to_diagnose(task: ImageTask) -> float:
    """About the seconds to measure plasticity at a last stage, from a try on as few images as take its memory."""
    model, new = task.make_model(), task.arriving[-1]
    some = task.training_examples(slice(0, min(CURVED_PIECE, task.seen[-1])))
    read = min(MEASURED, new) + min(MEASURED, task.seen[-1] - new)
    parts = {
        "isometry": 1.0,  # of weights alone
        "sharpness": min(CURVED, new) / len(some),  # in as many products as of an untrained network
        "dormant-units,feature-rank,gradient-norm": read / len(some),
    }
    batches = [some.batch(slice(0, len(some)))]
    return sum(
        times * diagnose(model, batches, training_loss, only=names.split(",")).seconds for names, times in parts.items()
    )


def _memory_message(task: ImageTask, device: torch.device, needed: int, jobs: int) -> str:
    total = torch.cuda.get_device_properties(device).total_memory
    runs = "1 run needs" if jobs == 1 else f"{jobs} runs at a time need"
    remedy = (
        "use --precision bf16, a smaller --model or --device cpu" if jobs == 1 else f"use --jobs {jobs - 1} or less"
    )
    return (
        f"{runs} about {needed * jobs / 2**30:.1f} GiB on {device}, which has {total / 2**30:.1f} GiB "
        f"({task.model}, batches of {task.recipe.batch_size}); {remedy}"
    )


def duration(seconds: float) -> str:
    """A time for people: ``3 d 4 h``, ``2 h 10 min``, ``5 min`` or ``40 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
