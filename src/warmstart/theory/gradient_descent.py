"""From the discrete rules to real gradient descent: a patch network trained in stages, method by method.

The loss is the hinge loss, max(0, 1 - margin), so that an example which is right with margin 1 has gradient zero, as in
the discrete rules: "live" means the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import multi_margin_loss

from warmstart.batches import cut_from_newest
from warmstart.data.features_and_noise import PatchExamples, PatchWorld, draw_examples
from warmstart.errors import InputError
from warmstart.methods.lifecycle import Updates, measured, prepare_, reported
from warmstart.methods.method import Method, Stage
from warmstart.methods.registry import parse_method
from warmstart.methods.report import Report
from warmstart.methods.units_and_activations import UnitsOf, latest_activations
from warmstart.theory.patch_network import (
    Parts,
    PatchNetwork,
    remove_noise_,
    split_filters,
    without_empty_patches,
)
from warmstart.theory.settings import ORACLE, DescentSettings

_TEST_EXAMPLES = 2000
_TRAIN, _TEST = range(2)
_FIRST, _FRESH, _NOISE = range(3)
"""Purposes of torch's random numbers; the method is none, so that all methods start from the same weights."""


@dataclass(frozen=True)
class DescentStage:
    """A stage's record."""

    live_examples: int
    """Examples with gradient when training began."""
    steps: int
    unfinished_examples: int
    """Examples with gradient when it ended: 0, unless `max_steps` ended it."""
    test_accuracy: float
    before: Parts
    """The filters when training began, after the method had acted."""
    after: Parts


@dataclass(frozen=True)
class Oracle(Method):
    """Forget exactly the noise, which is known because the data are synthetic."""

    world: PatchWorld = field(default_factory=PatchWorld)

    name: ClassVar[str] = ORACLE
    summary: ClassVar[str] = "remove the noise component of each filter"

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Project every filter on the features."""
        assert isinstance(model, PatchNetwork)
        remove_noise_(model, self.world)
        return Report(self.name)


def make_methods(settings: DescentSettings) -> dict[str, Method]:
    """Make the methods that are compared: name -> method."""
    return {name: Oracle(settings.make_world()) if name == ORACLE else parse_method(name) for name in settings.methods}


def descend(settings: DescentSettings, method: Method, seed: int) -> list[DescentStage]:
    """Train a network in stages, with one record a stage; ``seed`` decides data and weights, alike for all methods."""
    world = settings.make_world()
    train = draw_examples(world, seed, settings.examples * settings.stages, _TRAIN)
    test = draw_examples(world, seed, _TEST_EXAMPLES, _TEST)
    shown, tested = without_empty_patches(train.patches), without_empty_patches(test.patches)
    network = _network(settings, method, (seed, _FIRST))
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=settings.lr, momentum=settings.momentum)
    record: list[DescentStage] = []
    state: dict[str, Tensor] = {}
    for number in range(1, settings.stages + 1):
        count = number * settings.examples
        seen = PatchExamples(train.patches[:count], train.labels[:count], train.carried[:count], train.noise[:count])
        patches, labels = shown[:count], seen.labels
        batches = partial(_oldest_first, patches, labels, settings.examples)
        stage = Stage(
            number=number,
            seen=count,
            new=settings.examples,
            batches=batches,
            forward_loss=_hinge_loss,
            fresh=partial(_network, settings, method, (seed, _FRESH, number)),
            initial=initial,
            generator=torch.Generator().manual_seed(_seed(seed, _NOISE, number)),
            optimizer=optimizer,
            state=state,
            updates_per_epoch=1,
            units=UnitsOf(network, batches, _hinge_loss),
        )
        if number > 1:
            reported(method, network, stage)
        before = split_filters(network, world, seen)
        with latest_activations(method, network, stage):
            live, steps, unfinished = _train(network, patches, labels, method, stage, settings)
        with torch.no_grad():
            served = measured(method, network, state)
            accuracy = (served(tested).argmax(dim=1) == test.labels).double().mean().item()
        after = split_filters(network, world, seen)
        record.append(DescentStage(live, steps, unfinished, accuracy, before, after))
    return record


def _train(
    network: PatchNetwork, patches: Tensor, labels: Tensor, method: Method, stage: Stage, settings: DescentSettings
) -> tuple[int, int, int]:
    """Full-batch gradient descent until no example has gradient: live examples at first, steps, live ones at last."""
    assert stage.optimizer is not None
    updates, first = Updates(method, stage), None
    for step in range(settings.max_steps + 1):
        output = network(patches)
        if not output.isfinite().all():  # PyTorch's hinge loss of NaN is 0
            raise InputError(f"{method.name}: training diverges in stage {stage.number}; lower lr or init_std")
        losses = _hinge_losses(output, labels)
        live = int((losses > 0).sum())
        first = live if first is None else first
        if live == 0 or step == settings.max_steps:
            break
        stage.optimizer.zero_grad()
        losses.mean().backward()
        updates.after_backward(network)
        stage.optimizer.step()
        updates.after_step(network)
    return first or 0, step, live


def _hinge_losses(output: Tensor, labels: Tensor) -> Tensor:
    # PyTorch's mean over classes is undone: with two of them this is max(0, 1 - margin).
    return multi_margin_loss(output, labels, reduction="none") * output.shape[1]


def _hinge_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    patches, labels = batch
    return _hinge_losses(model(patches), labels).mean()


def _oldest_first(
    patches: Tensor, labels: Tensor, stage_size: int, batch_size: int | None
) -> Sequence[tuple[Tensor, Tensor]]:
    def batch(chosen: range) -> tuple[Tensor, Tensor]:
        index = slice(chosen.start, chosen.stop)
        return patches[index], labels[index]

    return cut_from_newest(len(labels), batch_size or stage_size, batch)


def _network(settings: DescentSettings, method: Method, purpose: tuple[int, ...]) -> PatchNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(*purpose))
        network = PatchNetwork(settings, settings.filters, settings.init_std)
        prepare_(method, network)
        return network


def _seed(*purpose: int) -> int:
    return int(np.random.SeedSequence(purpose).generate_state(1, np.uint64)[0] >> 1)
