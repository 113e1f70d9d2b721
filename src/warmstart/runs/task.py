"""What is trained and measured in a comparison, behind one interface: images by name, or a user's own functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from warmstart.diagnostics.measure import Measurement
from warmstart.losses import ForwardLoss
from warmstart.methods.method import Method, Stage
from warmstart.methods.units_and_activations import UnitsOf
from warmstart.processes import Team
from warmstart.runs.key import RunKey
from warmstart.training.loop import Progress

LARGEST_BATCH = 2000
"""Most examples in a batch of DASH's average, unless ``dash[batch_size=N]`` is set: the paper's on Tiny-ImageNet."""


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
    old: float = float("nan")
    """Accuracy on training examples of earlier stages; NaN in the first stage, and where it is not known."""
    new: float = float("nan")
    """Accuracy on those that arrived with the stage."""


@dataclass(frozen=True, eq=False)
class StageData:
    """The data of one stage; it depends on neither the method nor the progress."""

    seen: int
    """Examples that have arrived so far, the new ones included."""
    new: int
    """Examples that arrived with this stage."""
    batches: Callable[[int | None], Sequence[Any]]
    """``batches(size)``: all examples seen so far, oldest first; None means a stage's size."""
    forward_loss: ForwardLoss
    micro_batch_size: int | None = None
    """Examples that fit into one forward and backward pass; None for any number."""
    updates: int | None = None
    """Updates that the stage will have; None where its end is not known."""
    updates_per_epoch: int | None = None
    """Updates in one pass over the examples; None where nobody knows."""
    examples: Any = None
    """The task's own: what it trains on."""
    test: Any = None
    """The task's own: what it measures on."""
    test_set: str = ""
    """Which examples these are: equal texts where they are the same."""

    def stage(
        self,
        number: int,
        *,
        fresh: Callable[[], nn.Module],
        initial: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None,
        units: UnitsOf,
        state: dict[str, Tensor],
    ) -> Stage:
        """The stage as a method sees it; its generator is still to be seeded, and ``state`` outlives it."""
        return Stage(
            number=number,
            seen=self.seen,
            new=self.new,
            batches=self.batches,
            forward_loss=self.forward_loss,
            fresh=fresh,
            initial=initial,
            generator=torch.Generator(),
            optimizer=optimizer,
            micro_batch_size=self.micro_batch_size,
            updates=self.updates,
            updates_per_epoch=self.updates_per_epoch,
            state=state,
            units=units,
        )


@dataclass(frozen=True, eq=False)
class TrainingContext:
    """One stage of one run, as training sees it: data, method, and the calls between epochs."""

    stage: Stage
    data: StageData
    method: Method
    seed: int
    start: Progress
    """Progress of an interrupted stage."""
    team: Team
    """The processes that train together."""
    note: Callable[[Measurement], None]
    """Keeps what is measured while the stage is trained."""
    after_epoch: Callable[[Progress], None]
    save_due: Callable[[], bool]
    """Whether a stage that is training should be saved now."""
    save: Callable[[Progress], None]


class Task(Protocol):
    """Data, network, training and measurement."""

    @property
    def data(self) -> str:
        """The data's name."""

    @property
    def model(self) -> str:
        """The network's name."""

    @property
    def stages(self) -> int:
        """The number of stages of a run."""

    def method(self, name: str) -> Method:
        """The method of that name in results.csv."""

    def make_model(self) -> nn.Module:
        """Draw a network from PyTorch's global random state, where it is trained."""

    def make_optimizer(self, model: nn.Module, key: RunKey) -> torch.optim.Optimizer | None:
        """The optimizer that lives as long as the run; None where training makes its own."""

    def stage_data(self, seed: int, number: int) -> StageData:
        """The data of the stage of that number, from 1, in the stream of that seed."""

    def train(self, model: nn.Module, context: TrainingContext) -> Progress:
        """Train on a stage."""

    def measure(self, model: nn.Module, data: StageData) -> Measured:
        """Measure the network that the method names on the test set, after training on that data."""

    def scores(self, model: nn.Module, data: StageData) -> Tensor | None:
        """The scores of a network on the test set of that data; None where only their mean is known."""

    def diagnose(self, model: nn.Module, stage: Stage, data: StageData) -> Sequence[Measurement]:
        """Measure the plasticity of a network that is about to be trained; nothing where nobody asks for it."""
