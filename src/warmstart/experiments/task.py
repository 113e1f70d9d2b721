"""What is trained and measured in a comparison, behind one interface: images by name, or a user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from warmstart.methods.method import Method, Stage
from warmstart.processes import Team
from warmstart.training.loop import Progress

LARGEST_BATCH = 2000
"""Of DASH's average, unless ``dash[batch_size=N]`` says otherwise: the paper's chunk of Tiny-ImageNet."""


@dataclass(frozen=True, eq=False)
class Measured:
    """How good a network is after a stage."""

    accuracy: float
    """The metric; accuracy in [0, 1] for images."""
    loss: float = float("nan")
    recalibrated: float = float("nan")
    """Accuracy with batch-norm statistics recalibrated; NaN without batch norm."""
    scores: Tensor | None = None
    """(N,) each test example's score in [0, 1], where the metric is their mean."""


@dataclass
class Visit:
    """One stage of one run, as training sees it: what the method may ask for, and what happens between epochs."""

    stage: Stage
    method: Method
    seed: int
    start: Progress = field(default_factory=Progress)
    """Where an interrupted stage had come to."""
    after_epoch: Callable[[Progress], None] = lambda progress: None
    save_due: Callable[[], bool] = lambda: False
    """Whether a stage that is training should be saved now, as far as it has come."""
    save: Callable[[Progress], None] = lambda progress: None
    team: Team = field(default_factory=Team)
    """The processes that train together."""
    data: Any = None
    """The task's own: the examples of this stage."""


class Task(Protocol):
    """Data, network, training and measurement."""

    data: str
    model: str
    stages: int

    def method(self, name: str) -> Method:
        """The method of that name in results.csv."""

    def make_model(self) -> nn.Module:
        """Draw a network from PyTorch's global random state, where it is trained."""

    def make_optimizer(self, model: nn.Module, name: str) -> torch.optim.Optimizer | None:
        """The optimizer of that name that lives as long as the run; None where training makes its own."""

    def visit(self, seed: int, number: int, fresh: Callable[[], nn.Module], method: Method) -> Visit:
        """The stage of that number, from 1, in the stream of that seed; what a run keeps is filled in by it."""

    def train(self, model: nn.Module, visit: Visit) -> Progress:
        """Train on a stage."""

    def measure(self, model: nn.Module, visit: Visit) -> Measured:
        """Measure on the test set."""
