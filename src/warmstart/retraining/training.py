"""One training of a stage, in this process or in several that were launched together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch

from warmstart.errors import InputError, require
from warmstart.processes import Team
from warmstart.retraining import snapshots
from warmstart.retraining.candidate import StageFolder
from warmstart.retraining.facts import Facts
from warmstart.retraining.night_task import NightTask, night_task
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.snapshots import Snapshot
from warmstart.retraining.state import COLD, SLOWER, StateFolder
from warmstart.runs.key import RunKey
from warmstart.runs.run import Event, Run
from warmstart.training.devices import computing_with, memory_sufficing
from warmstart.training.shares import end_together

SLOWER_BY = 1 / 3
"""What the learning rate of the second training is multiplied by."""


@dataclass(frozen=True)
class Part:
    """What arrived with one stage."""

    stage: int
    sha256: str


@dataclass(frozen=True)
class ArrivedData:
    """All that has arrived by a stage; it is read when it is first asked for, and once."""

    state: StateFolder
    parts: tuple[Part, ...]
    """Oldest first."""
    test_file: str
    """That of the test set; empty where a fifth of what arrives is held out."""
    withdrawn: Mapping[bytes, int]
    """Digest -> the stage from which on its examples of earlier stages are left out."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields alone: each process reads the data itself."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @property
    def train(self) -> Snapshot:
        """What is trained on."""
        return self._read[0]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many examples of each part are trained on."""
        return self._read[2]

    @cached_property
    def test(self) -> Snapshot:
        """What is tested: the held-out fifth, or a test set without what has been trained on."""
        if not self.test_file:
            return self._read[1]
        file = self.state.data_file(self.test_file)
        test = snapshots.read(file, snapshots.sha256_of_test(self.test_file))
        trained = set(snapshots.split_rows(self.train.pixels))
        fresh = [one not in trained for one in snapshots.split_rows(test.pixels)]
        return test.at(torch.tensor(fresh, dtype=torch.bool))

    def require_whole(self) -> None:
        """Raise InputError unless all that has arrived is there as it was written, and something is left to test on."""
        require(len(self.test) > 0, "all images of --test have been trained on; give others")

    @cached_property
    def _read(self) -> tuple[Snapshot, Snapshot, tuple[int, ...]]:
        trained, held_out = zip(*map(self._read_part, self.parts), strict=True)
        return snapshots.joined(trained), snapshots.joined(held_out), tuple(map(len, trained))

    def _read_part(self, part: Part) -> tuple[Snapshot, Snapshot]:
        """What arrived with one stage: what is trained on, and what is held out."""
        arrived = snapshots.read(self.state.snapshot(part.stage), part.sha256)
        if self.withdrawn:
            kept = [self.withdrawn.get(one, 0) <= part.stage for one in arrived.known()]
            arrived = arrived.at(torch.tensor(kept, dtype=torch.bool))
        held_out = torch.zeros(len(arrived), dtype=torch.bool) if self.test_file else arrived.held_out
        return arrived.at(~held_out), arrived.at(held_out)


@dataclass(frozen=True)
class Job:
    """All that a stage's trainings need; it can be sent to the other processes."""

    stage: int
    settings: RetrainSettings
    facts: Facts
    classes: tuple[str, ...]
    data: ArrivedData
    chain: tuple[int, ...]
    """The stages before it, from which it goes on, oldest first."""

    @property
    def new(self) -> int:
        """How many of the examples that are trained on the stage before was not."""
        return self._arrivals()[-1]

    def _arrivals(self) -> tuple[int, ...]:
        """The examples between the ends of the stages of the chain; a stage that follows nothing begins with all."""
        ends = [*self.chain, self.stage]
        arrivals = [0] * len(ends)
        for part, count in zip(self.data.parts, self.data.counts, strict=True):
            arrivals[next(place for place, end in enumerate(ends) if part.stage <= end)] += count
        return tuple(arrivals)

    def task(self, attempt: str) -> NightTask:
        """What a training of the stage trains."""
        train, test = self.data.train, self.data.test
        arrivals = (len(train),) if attempt == COLD else self._arrivals()
        lr = self.settings.lr * (SLOWER_BY if attempt == SLOWER else 1)
        recipe = self.settings.model_copy(update={"lr": lr})
        return night_task(self.facts, self.classes, recipe, train=train, test=test, arrivals=arrivals)

    def key(self, attempt: str) -> RunKey:
        """Which run it is."""
        method = "cold" if attempt == COLD else self.settings.method
        return RunKey(method, self.settings.seed, self.settings.optimizer)


def train(
    job: Job, attempt: str, folder: StageFolder | None, team: Team, on_event: Callable[[Event], None]
) -> tuple[Run, NightTask]:
    """Train, or go on where a training stopped; of a team, the first process alone has the folder.

    Returns:
        The run, which is over, and its task.
    """
    task, key = job.task(attempt), job.key(attempt)
    with computing_with(int(job.settings.threads)), memory_sufficing(key):
        run = Run(task, key, folder, team)
        run.go_on(on_event)
    return run, task


class Helpers:
    """The other processes of a team, which take part in each training until they are dismissed."""

    def __init__(self, team: Team) -> None:
        self._team, self._busy = team, False

    def train(
        self, job: Job, attempt: str, folder: StageFolder, on_event: Callable[[Event], None]
    ) -> tuple[Run, NightTask]:
        """Train with all of them."""
        self._team.broadcast((job, attempt))
        self._busy = True
        trained = train(job, attempt, folder, self._team, on_event)
        self._busy = False
        return trained

    def dismiss(self) -> None:
        """Let them end; in the middle of a training that failed here, their launcher ends them."""
        if not self._busy:
            self._team.broadcast(None)
            end_together(self._team)


def train_along(team: Team) -> None:
    """In all processes but the first: take part in each training, until this one is dismissed."""
    nothing: tuple[Job, str] | None = None
    read: ArrivedData | None = None
    while (told := team.broadcast(nothing)) is not None:
        job, attempt = told
        if job.data != read:
            read = job.data
        train(replace(job, data=read), attempt, None, team, _ignore)
    end_together(team)


def _ignore(event: Event) -> None:
    """Ignore an event: only the first process says what happens."""


def require_testable(job: Job) -> None:
    """Raise InputError unless a first stage has two classes to tell apart and something to test on."""
    labels = set(job.data.train.labels.tolist())
    if len(labels) < 2:
        only = f"only '{job.classes[labels.pop()]}'" if labels else "none"
        raise InputError(f"the first stage needs two classes, and there is {only} to train on; add images of others")
    if len(job.data.test) == 0:
        raise InputError("no image is in the held-out fifth; add images, or give --test PATH")
