"""Image classification as in the paper: a stream of images, a network by name, the stopping rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.data.images import ImageData
from warmstart.layers.norms import batch_norms
from warmstart.losses import training_loss
from warmstart.methods.method import Method
from warmstart.methods.registry import parse_method
from warmstart.models.factory import ModelFactory, check_factory
from warmstart.models.registry import MODELS, input_range, model_factory
from warmstart.runs.task import LARGEST_BATCH, Measured, StageData, TrainingContext
from warmstart.seeds import derive
from warmstart.streams.random_draws import split_stages
from warmstart.training.devices import find_device
from warmstart.training.evaluation import evaluate, recalibrated
from warmstart.training.examples import Examples, on_device
from warmstart.training.loop import Hooks, Progress, Recipe, batch_slices, train_stage
from warmstart.training.optimizers import make_optimizer

MICRO_BATCH, MICRO_BATCH_ON_GPU = 128, 512
"""Examples of such a batch that are computed at a time: on a CPU a whole chunk at once is slower, and on a GPU the
kernels of a small one take less time than launching them."""


@dataclass(frozen=True)
class TrainingProtocol:
    """How every run of a grid is trained, whatever its method, seed and optimizer."""

    model: str
    stages: int
    stage_size: int
    recipe: Recipe
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    device: str = "cpu"
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the model's factory."""


@dataclass
class ImageTask:
    """The task of `warmstart compare` and `reproduce`; it can be sent to another process."""

    protocol: TrainingProtocol
    images: ImageData

    def __post_init__(self) -> None:
        self.data = self.images.name
        self.model = self.protocol.model
        self.stages = self.protocol.stages

    def __reduce__(self) -> tuple[Any, ...]:
        """What travels to another process, which puts the images onto its own device."""
        return type(self), (self.protocol, self.images)

    def check(self, optimizers: Iterable[str], seeds: int) -> None:
        """Find what is wrong before any work is done.

        Args:
            optimizers: The optimizers that will be asked for.
            seeds: How many seeds there will be.

        Raises:
            InputError: If the device is not there, the data does not fill the stages, the factory is none, or a batch
                would be too small.
        """
        find_device(self.protocol.device)
        check_factory(self._factory, *self._shape, name=self.protocol.model)
        with torch.random.fork_rng(devices=[]):
            model = self._factory(*self._shape)
        for optimizer in optimizers:
            self.make_optimizer(model, optimizer)
        for seed in range(seeds):
            self._split(seed)
        for number in range(1, self.stages + 1):
            batch_slices(number * self.protocol.stage_size, self.protocol.recipe.batch_size, model)

    def method(self, name: str) -> Method:
        """The method of that name on the command line."""
        return parse_method(name)

    def make_model(self) -> nn.Module:
        """Draw a network from PyTorch's global random state, where it is trained."""
        return self._factory(*self._shape).to(self._device)

    def make_optimizer(self, model: nn.Module, name: str) -> torch.optim.Optimizer:
        """The optimizer of that name that lives as long as the run."""
        protocol = self.protocol
        return make_optimizer(
            name, model, lr=protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
        )

    def stage_data(self, seed: int, number: int) -> StageData:
        """The data of the stage of that number in the stream of that seed."""
        seen = torch.cat(self._split(seed)[:number])
        examples = self._train.at(seen.to(self._train.labels.device))
        size = self.protocol.stage_size
        return StageData(
            seen=len(examples),
            new=size,
            batches=lambda batch_size: examples.in_order(batch_size or min(size, LARGEST_BATCH)),
            forward_loss=_forward_loss,
            micro_batch_size=MICRO_BATCH if self._device.type == "cpu" else MICRO_BATCH_ON_GPU,
            examples=examples,
        )

    def train(self, model: nn.Module, context: TrainingContext) -> Progress:
        """Train on a stage until the stopping rule holds."""
        stage, method = context.stage, context.method

        def seed_of(epoch: int, segment: int) -> int:
            place = (epoch, segment) if segment else (epoch,)
            stage.generator.manual_seed(derive(context.seed, "noise", stage.number, *place))
            return derive(context.seed, "order", stage.number, *place)

        hooks = Hooks(after_epoch=context.after_epoch, save_due=context.save_due, save=context.save)
        if method.acts_on_updates:
            hooks = replace(
                hooks,
                after_backward=partial(method.after_backward, model, stage),
                after_step=partial(method.after_step, model, stage),
            )
        assert stage.optimizer is not None
        return train_stage(
            model,
            stage.optimizer,
            context.data.examples,
            self.recipe,
            seed_of=seed_of,
            hooks=hooks,
            start=context.start,
            team=context.team,
        )

    def measure(self, model: nn.Module, data: StageData) -> Measured:
        """Measure on the test set, with batch-norm statistics as they are and recalibrated."""
        plain = evaluate(model, self._test)
        if not batch_norms(model):
            return Measured(plain.accuracy, plain.loss, scores=plain.correct)
        with recalibrated(model, data.examples):
            accuracy = evaluate(model, self._test).accuracy
        return Measured(plain.accuracy, plain.loss, accuracy, plain.correct)

    @property
    def recipe(self) -> Recipe:
        """How a stage is trained; only networks that are known to allow it are recorded as a CUDA graph."""
        # One of a user's may choose anew in Python at each call, which a recording would freeze.
        return replace(self.protocol.recipe, captured=self.protocol.model in MODELS)

    def training_examples(self, index: slice) -> Examples:
        """Some of the training part.

        Args:
            index: Which.

        Returns:
            Those examples, where they are trained on.
        """
        return self._train.at(index)

    def test_examples(self, index: slice) -> Examples:
        """Some of the test part.

        Args:
            index: Which.

        Returns:
            Those examples, where they are measured on.
        """
        return self._test.at(index)

    def _split(self, seed: int) -> list[Tensor]:
        return split_stages(self.images, self.protocol.stages, self.protocol.stage_size, seed)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.images.num_classes, self.images.channels, self.images.image_size

    @cached_property
    def _factory(self) -> ModelFactory:
        return partial(model_factory(self.protocol.model), **self.protocol.model_settings)

    @cached_property
    def _device(self) -> torch.device:
        return find_device(self.protocol.device)

    @cached_property
    def _train(self) -> Examples:
        return self._examples(self.images.train_images, self.images.train_labels)

    @cached_property
    def _test(self) -> Examples:
        return self._examples(self.images.test_images, self.images.test_labels)

    def _examples(self, images: Tensor, labels: Tensor) -> Examples:
        mean, std = self.images.channel_mean(), self.images.channel_std()
        if input_range(self.protocol.model) == "unit":
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        return on_device(images, labels, mean, std, self._device)


def _forward_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, labels = batch
    return training_loss(model(inputs), labels)
