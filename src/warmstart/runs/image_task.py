"""Image classification as in the paper: a stream of images, a network by name, the stopping rule."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.data.images import ImageData
from warmstart.diagnostics.diagnose import diagnose
from warmstart.diagnostics.measure import Measurement
from warmstart.errors import InputError
from warmstart.gradient_pass import gradient_pass
from warmstart.image_size import ImageSize, height_and_width
from warmstart.layers.norms import batch_norms
from warmstart.layers.output import output_layer
from warmstart.losses import training_loss
from warmstart.methods.lifecycle import Updates
from warmstart.methods.method import Method, Stage, reset_optimizer_
from warmstart.methods.registry import parse_method
from warmstart.methods.units_and_activations import latest_activations
from warmstart.models.factory import ModelFactory, check_factory
from warmstart.models.registry import input_range, is_ours, model_factory
from warmstart.runs.key import RunKey
from warmstart.runs.own_recipe import own_recipe
from warmstart.runs.task import LARGEST_BATCH, Measured, StageData, TrainingContext
from warmstart.seeds import derive
from warmstart.streams.image_stream import ImageStream, Selection, image_stream
from warmstart.streams.settings import StreamSettings
from warmstart.training.devices import find_device
from warmstart.training.evaluation import evaluate, recalibrated
from warmstart.training.examples import Examples, on_device
from warmstart.training.loop import Hooks, Progress, batch_slices, train_stage
from warmstart.training.mapped_examples import MappedExamples
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import Recipe

MICRO_BATCH, MICRO_BATCH_ON_GPU = 128, 512
"""Examples of a batch of DASH's average that are computed at a time: on a CPU more are slower, and on a GPU fewer take
less time to compute than to launch."""
FIRST_EPOCHS = 5
"""Of a stage, after each of which accuracy on earlier examples is measured where plasticity is."""
MEASURED = 2000
"""Old examples, and new ones, on which accuracy is measured after a stage; examples of batch-norm statistics."""


@dataclass(frozen=True)
class ImageTask:
    """The task of `warmstart compare` and `reproduce`; it can be sent to another process."""

    images: ImageData
    model: str
    recipe: Recipe
    """Of every run; its optimizer is replaced by the run's."""
    stream: StreamSettings
    device: str = "cpu"
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the model's factory."""
    diagnosed: bool = False
    """Whether plasticity is measured at each stage's start, and on earlier examples in its first epochs."""
    validation: bool = False
    """Whether it is to tune on: measured is what is held out of the training data, and nothing of the test set."""
    mean: tuple[float, ...] = ()
    """Of each channel, of images in [0, 1]: what is subtracted; empty for the training part's own."""
    std: tuple[float, ...] = ()
    """What they are divided by, likewise."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields alone, mean and std filled in: another process puts the images onto its own device."""
        # Of images in a file each process would read all, for these few numbers.
        mean, std = (tuple(values.tolist()) for values in self.normalisation)
        values = {field.name: getattr(self, field.name) for field in fields(self)} | {"mean": mean, "std": std}
        return type(self), tuple(values.values())

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.images.name

    @cached_property
    def stages(self) -> int:
        """The number of arrivals that are trained on."""
        known = None if self.validation else self.stream.stages
        return self._stream(0).stages if known is None else known

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Examples that have arrived at each stage, with seed 0."""
        return tuple(self._seen(0))

    @cached_property
    def arriving(self) -> tuple[int, ...]:
        """Examples that each stage brings, with seed 0."""
        stream = self._stream(0)
        return tuple(self._count(stream.arrival(number).new) for number in range(1, stream.stages + 1))

    def tested(self, seed: int, number: int) -> int:
        """How many examples are tested after a stage."""
        return self._count(self._test_of(seed, number))

    def check(self, seeds: Iterable[int]) -> list[str]:
        """Check that the device, the data, the model and every batch size fit.

        Returns:
            What a user should know, one sentence each: classes that are not tested.

        Raises:
            InputError: If something does not fit.
        """
        find_device(self.device)
        check_factory(self._factory, *self._shape, name=self.model)
        with torch.random.fork_rng(devices=[]):
            model = self._factory(*self._shape)
        sizes: set[int] = set()
        untested: dict[str, list[int]] = {}
        for seed in seeds:
            sizes.update(self._seen(seed))
            for label in sorted(self._stream(seed).left_out):
                untested.setdefault(self.images.classes[label], []).append(seed)
        for examples in sorted(sizes):
            batch_slices(examples, self.recipe.batch_size, normalised=bool(batch_norms(model)))
        return _untested(untested)

    def method(self, name: str) -> Method:
        """The method of that name on the command line."""
        return parse_method(own_recipe(name)[0])

    def make_model(self) -> nn.Module:
        """Draw a network from PyTorch's global random state, where it is trained."""
        return self._factory(*self._shape).to(self._device)

    def make_optimizer(self, model: nn.Module, key: RunKey) -> torch.optim.Optimizer:
        """The optimizer that lives as long as the run, with the rate and weight decay that the method may have."""
        own = own_recipe(key.method)[1]
        recipe = self.recipe.model_copy(update={"optimizer": key.optimizer, **own})
        return make_optimizer(recipe, model, self._head(model) if key.optimizer == "muon" else None)

    def stage_data(self, seed: int, number: int) -> StageData:
        """The data of the stage of that number in the stream of that seed."""
        arrival, tested = self._stream(seed).arrival(number), self._test_of(seed, number)
        examples, new = self._select(arrival.train), self._count(arrival.new)
        updates_per_epoch = len(batch_slices(len(examples), self.recipe.batch_size, normalised=self._has_batch_norm))
        return StageData(
            seen=len(examples),
            new=new,
            batches=lambda batch_size: examples.in_order(batch_size or min(new, LARGEST_BATCH)),
            forward_loss=partial(_forward_loss, examples, self.recipe.label_smoothing),
            micro_batch_size=examples.in_a_pass(MICRO_BATCH if self._device.type == "cpu" else MICRO_BATCH_ON_GPU),
            updates=None if (epochs := self.recipe.of_stage(number).epochs) is None else epochs * updates_per_epoch,
            updates_per_epoch=updates_per_epoch,
            examples=examples,
            test=self._select(tested),
            test_set=_digest(tested),
        )

    def train(self, model: nn.Module, context: TrainingContext) -> Progress:
        """Train on a stage until the stopping rule holds."""
        stage, method = context.stage, context.method

        def seed_of(epoch: int, segment: int) -> int:
            place = (epoch, segment) if segment else (epoch,)
            stage.generator.manual_seed(derive(context.seed, "noise", stage.number, *place))
            return derive(context.seed, "order", stage.number, *place)

        def after_epoch(progress: Progress) -> None:
            if self.diagnosed and progress.epochs <= FIRST_EPOCHS:
                old, _ = _old_and_new(context.data)
                for measurement in self._accuracy_before(model, old, f"epoch {progress.epochs}"):
                    context.note(measurement)
            context.after_epoch(progress)

        hooks = Hooks(after_epoch=after_epoch, save_due=context.save_due, save=context.save)
        if method.acts_on_updates:
            updates = Updates(method, stage, done=context.start.steps)
            hooks = replace(
                hooks,
                after_backward=partial(updates.after_backward, model),
                after_step=partial(updates.after_step, model),
            )
        assert stage.optimizer is not None
        if self.recipe.new_optimizer and context.start == Progress():
            reset_optimizer_(stage.optimizer)
        with latest_activations(method, model, stage) as seen:
            progress = train_stage(
                model,
                stage.optimizer,
                context.data.examples,
                self.training_recipe.of_stage(stage.number),
                seed_of=seed_of,
                hooks=replace(hooks, watched=seen),
                start=context.start,
                team=context.team,
            )
        hopeless = self.validation and progress.status == "max-epochs"  # a trial has failed by that
        return replace(progress, status="given-up") if hopeless else progress

    def measure(self, model: nn.Module, data: StageData) -> Measured:
        """Measure on the test set, with batch-norm statistics as they are and recalibrated."""
        layout = {"channels_last": self.recipe.channels_last}
        plain = evaluate(model, data.test, **layout)
        old, new = _old_and_new(data)
        found = Measured(
            plain.accuracy,
            plain.loss,
            scores=plain.correct,
            old=evaluate(model, old, **layout).accuracy if len(old) else math.nan,
            new=evaluate(model, new, **layout).accuracy,
        )
        if not batch_norms(model):
            return found
        with recalibrated(model, data.examples, **layout):
            return replace(found, recalibrated=evaluate(model, data.test, **layout).accuracy)

    def scores(self, model: nn.Module, data: StageData) -> Tensor:
        """Which examples of the test set a network gets right."""
        return evaluate(model, data.test, channels_last=self.recipe.channels_last).correct

    def diagnose(self, model: nn.Module, stage: Stage, data: StageData) -> Sequence[Measurement]:
        """All measures on new examples and earlier ones, with statistics of both, and what is remembered of these."""
        if not self.diagnosed:
            return ()
        old, new = _old_and_new(data)
        remembered = self._accuracy_before(model, old, "epoch 0")
        with recalibrated(model, _some(data.examples, 0, data.seen)):
            if batch_norms(model):
                remembered += self._accuracy_before(model, old, "epoch 0, recalibrated")
            found = diagnose(
                model,
                new.in_order(self.recipe.batch_size),
                forward_loss=data.forward_loss,
                previous=old.in_order(self.recipe.batch_size) if len(old) else (),
                initial=stage.initial,
                optimizer=stage.optimizer,
                statistics="kept",
            )
        return (*found.measurements, *remembered)

    def _accuracy_before(self, model: nn.Module, old: Examples, moment: str) -> list[Measurement]:
        """Accuracy on examples of earlier stages; nothing where there are none."""
        if not len(old):
            return []
        accuracy = evaluate(model, old, channels_last=self.recipe.channels_last).accuracy
        return [Measurement(f"previous-accuracy[{moment}]", accuracy)]

    @property
    def training_recipe(self) -> Recipe:
        """The recipe; only networks of the registry are recorded as a CUDA graph."""
        # A user's network may decide in Python at each call, which a recording would freeze.
        return self.recipe.model_copy(update={"captured": is_ours(self.model)})

    def _head(self, model: nn.Module) -> nn.Module | None:
        """The layer that feeds the logits, found on black images; None if it is of a kind without a rule."""
        _, channels, image_size = self._shape
        with gradient_pass(model):
            logits = model(torch.zeros(2, channels, *height_and_width(image_size), device=self._device))
            try:
                return output_layer(model, logits)[1]
            except InputError:
                return None

    def training_examples(self, index: slice) -> Examples:
        """Some of the training part, on the device."""
        return self._train.at(index)

    @cached_property
    def _stream(self) -> Callable[[int], ImageStream]:
        """The stream of a seed; the latest is kept."""
        stream = partial(image_stream, self.images, self.stream, validation=self.validation)
        return lru_cache(maxsize=1)(stream)

    def _test_of(self, seed: int, number: int) -> Selection:
        tested = self._stream(seed).arrival(number).test
        assert tested is not None  # an ImageStream's always is
        return tested

    def _seen(self, seed: int) -> Iterator[int]:
        stream = self._stream(seed)
        return (self._count(stream.arrival(number).train) for number in range(1, stream.stages + 1))

    @cached_property
    def _has_batch_norm(self) -> bool:
        with torch.random.fork_rng(devices=[]):
            return bool(batch_norms(self._factory(*self._shape)))

    def _select(self, chosen: Selection) -> Examples:
        part = self._train if chosen.part == "train" else self._test
        examples = part if chosen.index is None else part.at(chosen.index.to(part.labels.device))
        if (names := chosen.shift.labels) is not None:
            examples = replace(examples, labels=names.to(examples.labels.device)[examples.labels])
        if (drawn := chosen.shift.drawn) is not None:
            examples = replace(examples, labels=drawn.to(examples.labels.device))
        if (pixels := chosen.shift.pixels) is not None:
            examples = replace(examples, pixels=pixels.to(examples.images.device))
        return examples

    def _count(self, chosen: Selection) -> int:
        labels = self.images.train_labels if chosen.part == "train" else self.images.test_labels
        return len(labels if chosen.index is None else chosen.index)

    @property
    def _shape(self) -> tuple[int, int, ImageSize]:
        return self.images.num_classes, self.images.channels, self.images.image_size

    @cached_property
    def _factory(self) -> ModelFactory:
        return partial(model_factory(self.model), **self.model_settings)

    @cached_property
    def _device(self) -> torch.device:
        return find_device(self.device)

    @cached_property
    def _train(self) -> Examples:
        return self._examples(self.images.train_images, self.images.train_labels)

    @cached_property
    def _test(self) -> Examples:
        return self._examples(self.images.test_images, self.images.test_labels)

    @cached_property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, of images in [0, 1]: float32 (C,)."""
        if input_range(self.model) == "unit":
            return torch.zeros(self.images.channels), torch.ones(self.images.channels)
        if self.mean:
            return torch.tensor(self.mean), torch.tensor(self.std)
        return self.images.channel_mean(), self.images.channel_std()

    def _examples(self, images: Tensor, labels: Tensor) -> Examples:
        mean, std = self.normalisation
        if self.images.file is None:
            return on_device(images, labels, mean, std, self._device)
        examples = on_device(images[:0], labels[:0], mean, std, self._device)
        places = torch.arange(len(labels))
        return MappedExamples(images, labels, examples.mean, examples.std, places, self.images.file)


def _old_and_new(data: StageData) -> tuple[Examples, Examples]:
    """Some of the examples of earlier stages, and some of those that arrived with this one."""
    before = data.seen - data.new
    return _some(data.examples, 0, before), _some(data.examples, before, data.seen)


def _some(examples: Examples, begin: int, end: int) -> Examples:
    """At most `MEASURED` of the examples from one place to another, evenly spread."""
    places = torch.linspace(begin, max(begin, end - 1), min(MEASURED, end - begin)).long()
    return examples.at(places.to(examples.labels.device))


def _digest(chosen: Selection) -> str:
    """A short text that tells some test examples from others; empty for the data set's own test part."""
    shift = chosen.shift
    told = [one for one in (chosen.index, shift.pixels, shift.labels, shift.drawn) if one is not None]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in told)).hexdigest()[:8] if told else ""


def _untested(classes: Mapping[str, Sequence[int]]) -> list[str]:
    """One sentence on classes that are in no stage, by the seeds with which they are in none."""
    if not classes:
        return []
    seeds = sorted({seed for these in classes.values() for seed in these})
    first = next(iter(classes))
    others = "" if len(classes) == 1 else f" and {len(classes) - 1} more of the classes"
    with_seeds = ", ".join(map(str, seeds[:5])) + (", …" if len(seeds) > 5 else "")
    return [f"'{first}'{others}: in no stage with seed {with_seeds}, so not tested there"]


def _forward_loss(examples: Examples, label_smoothing: float, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return training_loss(model(examples.normalised(images)), labels, label_smoothing=label_smoothing)
