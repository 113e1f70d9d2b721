"""`ws.diagnose`: the measures of plasticity, taken on a network that is not changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from warmstart.diagnostics.measure import Measure, Measurement, chosen_measures
from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError, one_of
from warmstart.layers.left_alone import LeftAlone
from warmstart.losses import ForwardLoss, as_forward_loss
from warmstart.network import require_module, require_optimizer
from warmstart.processes import team_of

MOST_BATCHES = 10_000
Statistics = Literal["recalibrated", "kept"]


@dataclass(frozen=True)
class Diagnosis:
    """The measurements; ``print`` it for a table of the whole network's."""

    measurements: tuple[Measurement, ...]
    left: tuple[LeftAlone, ...]
    """Measures that could not be taken, with the reason."""
    seconds: float

    def __getitem__(self, name: str) -> float:
        """The whole network's measurement of that name; KeyError if it was not taken."""
        return self.to_dict()[name]

    def to_dict(self) -> dict[str, float]:
        """The whole network's measurements by name, for loggers."""
        return {one.name: one.value for one in self.measurements if not one.layer}

    def by_layer(self, name: str) -> dict[str, float]:
        """A measure's numbers by layer, in the network's order."""
        return {one.layer: one.value for one in self.measurements if one.layer and one.name == name}

    def __str__(self) -> str:
        """A line for each measurement of the whole network, and for each that could not be taken."""
        numbers = self.to_dict()
        width = max(map(len, [*numbers, *(entry.name for entry in self.left)]), default=0)
        lines = [f"{name:<{width}}  {value:.4g}" for name, value in numbers.items()]
        return "\n".join([*lines, *(f"{entry.name:<{width}}  not taken: {entry.reason}" for entry in self.left)])


def diagnose(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    forward_loss: ForwardLoss | None = None,
    previous: Iterable[Any] = (),
    initial: Mapping[str, Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    only: Sequence[str | Measure] = (),
    statistics: Statistics = "recalibrated",
) -> Diagnosis:
    """Measure the plasticity of a network; its weights, gradients, buffers and modes are left as they are.

    Args:
        model: The network.
        batches: Examples to measure on, such as those that have just arrived: a few batches suffice, as nothing is
            sampled from them. Readiness takes gradients of 8 examples, and needs 4 of them.
        loss_fn: ``loss_fn(output, target)`` for batches ``(input, target)``; without it batches are mappings and the
            model's output has a ``.loss``.
        forward_loss: ``forward_loss(model, batch) -> scalar``, the mean over a batch, instead of ``loss_fn``.
        previous: Batches of earlier examples, for gradients on them and on all, and for ranks of features where the new
            examples are fewer than features.
        initial: The network's first weights by name, a copied ``state_dict``, for the distance from them.
        optimizer: The optimizer, for the effective rate.
        only: Names of measures, such as ``["dormant-units", "sharpness"]``, or measures of your own; all if empty. What
            is not asked for costs nothing.
        statistics: What batch norm normalises with while the network is measured, in eval mode: ``"recalibrated"``,
            means and variances of some 2000 of these examples, as it would in training; or ``"kept"``, its running
            statistics, which a network that has just been changed has from before.

    Returns:
        The measurements.

    Raises:
        InputError: If there is no batch, a name or ``statistics`` is unknown, or the network is trained by several
            processes.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> _ = torch.nn.init.eye_(model.weight)
        >>> batches = [(torch.randn(8, 2), torch.randn(8, 2))]
        >>> ws.diagnose(model, batches, torch.nn.functional.mse_loss, only=["isometry"])["isometry"]
        0.0
    """
    require_module(model)
    model, team = team_of(model)
    if team.size > 1:
        raise InputError("diagnose measures in one process: call it in the first, with the whole network")
    if optimizer is not None:
        require_optimizer(optimizer)
    one_of("statistics", statistics, get_args(Statistics))
    chosen = chosen_measures([only] if isinstance(only, (str, Measure)) else list(only))
    held = [list(islice(some, MOST_BATCHES)) for some in (batches, previous)]
    if not held[0]:
        raise InputError("there is no batch to measure on: give at least one")
    rates = None
    if optimizer is not None:
        rates = {p: float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    loss = as_forward_loss(loss_fn, forward_loss)
    subject = Subject(
        model,
        held[0],
        loss,
        held[1],
        initial,
        rates,
        grows_with_gradient="sgd" in type(getattr(optimizer, "base_optimizer", optimizer)).__name__.lower(),
        recalibrated=statistics == "recalibrated",
    )
    began, found, left = time.perf_counter(), [], []
    for measure in chosen:
        try:
            found += list(measure.of(subject))
        except InputError as error:
            left.append(LeftAlone(measure.name, str(error)))
    return Diagnosis(tuple(found), tuple(left), time.perf_counter() - began)
