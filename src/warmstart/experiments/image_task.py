"""Image classification as in the paper: a stream of images, a network by name, the stopping rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from warmstart.experiments.config import CompareConfig
from warmstart.experiments.seeds import derive
from warmstart.experiments.task import LARGEST_BATCH, Measured, Visit
from warmstart.methods import parse_method
from warmstart.methods.method import Method, Stage
from warmstart.models import check_factory, input_range, model_factory
from warmstart.neurons import batch_norms
from warmstart.streams import ImageData, split_stages
from warmstart.training.evaluation import evaluate, recalibrated
from warmstart.training.examples import Examples, on_device
from warmstart.training.loop import Hooks, Progress, Recipe, batch_slices, train_stage
from warmstart.training.optimizers import make_optimizer

MICRO_BATCH = 128
"""Examples of such a batch that are computed at a time; a whole chunk at once is slower on a CPU, and takes memory."""


@dataclass
class ImageTask:
    """The task that `warmstart compare` runs; it can be sent to another process."""

    config: CompareConfig
    images: ImageData

    def __post_init__(self) -> None:
        self.data = self.images.name
        self.model = self.config.model
        self.optimizer = self.config.optimizer
        self.stages = self.config.stages

    def check(self) -> None:
        """Find what is wrong before any work is done.

        Raises:
            InputError: If the device is not there, the data does not fill the stages, the factory is none, or a batch
                would be too small.
        """
        self.config.resolved_device()
        factory = model_factory(self.config.model)
        shape = (self.images.num_classes, self.images.channels, self.images.image_size)
        check_factory(factory, *shape, name=self.config.model)
        with torch.random.fork_rng(devices=[]):
            model = factory(*shape)
        make_optimizer(
            self.optimizer,
            model,
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )
        for seed in range(self.config.seeds):
            self._split(seed)
        for number in range(1, self.stages + 1):
            batch_slices(number * self.config.stage_size, self.config.batch_size, model)

    def method(self, name: str) -> Method:
        """The method of that name on the command line."""
        return parse_method(name)

    def make_model(self) -> nn.Module:
        """Draw a network from PyTorch's global random state, where it is trained."""
        factory = model_factory(self.config.model)
        model = factory(self.images.num_classes, self.images.channels, self.images.image_size)
        return model.to(self._device)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer that lives as long as the run."""
        config = self.config
        return make_optimizer(
            config.optimizer, model, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )

    def visit(self, seed: int, number: int, fresh: Callable[[], nn.Module], method: Method) -> Visit:
        """The stage of that number in the stream of that seed."""
        seen = torch.cat(self._split(seed)[:number])
        examples = self._train.at(seen.to(self._train.labels.device))
        size = self.config.stage_size
        stage = Stage(
            number=number,
            seen=len(examples),
            new=size,
            batches=lambda batch_size: examples.in_order(batch_size or min(size, LARGEST_BATCH)),
            forward_loss=_forward_loss,
            fresh=fresh,
            initial={},
            generator=torch.Generator(),
            micro_batch_size=MICRO_BATCH,
        )
        return Visit(stage, method, seed, data=examples)

    def train(self, model: nn.Module, visit: Visit) -> Progress:
        """Train on a stage until the stopping rule holds."""
        stage, method = visit.stage, visit.method

        def seed_of_epoch(epoch: int) -> int:
            stage.generator.manual_seed(derive(visit.seed, "noise", stage.number, epoch))
            return derive(visit.seed, "order", stage.number, epoch)

        hooks = Hooks(after_epoch=visit.after_epoch)
        if method.acts_on_updates:
            hooks = Hooks(
                partial(method.after_backward, model, stage),
                partial(method.after_step, model, stage),
                visit.after_epoch,
            )
        assert stage.optimizer is not None
        recipe = Recipe(self.config.batch_size, self.config.until, self.config.max_epochs)
        return train_stage(
            model, stage.optimizer, visit.data, recipe, seed_of_epoch=seed_of_epoch, hooks=hooks, start=visit.start
        )

    def measure(self, model: nn.Module, visit: Visit) -> Measured:
        """Measure on the test set, with batch-norm statistics as they are and recalibrated."""
        plain = evaluate(model, self._test)
        if not batch_norms(model):
            return Measured(plain.accuracy, plain.loss, scores=plain.correct)
        with recalibrated(model, visit.data):
            accuracy = evaluate(model, self._test).accuracy
        return Measured(plain.accuracy, plain.loss, accuracy, plain.correct)

    def _split(self, seed: int) -> list[Tensor]:
        return split_stages(self.images, self.config.stages, self.config.stage_size, seed)

    @cached_property
    def _device(self) -> torch.device:
        return self.config.resolved_device()

    @cached_property
    def _train(self) -> Examples:
        return self._examples(self.images.train_images, self.images.train_labels)

    @cached_property
    def _test(self) -> Examples:
        return self._examples(self.images.test_images, self.images.test_labels)

    def _examples(self, images: Tensor, labels: Tensor) -> Examples:
        mean, std = self.images.channel_mean(), self.images.channel_std()
        if input_range(self.config.model) == "unit":
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        return on_device(images, labels, mean, std, self._device)


def _forward_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, labels = batch
    return cross_entropy(model(inputs), labels)
