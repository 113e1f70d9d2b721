"""What becomes of optimizer, learning-rate schedule and batch-norm statistics when a method changes the weights.

The paper keeps all three; each can be said otherwise, and the report has a line on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, SequentialLR

from warmstart.batches import equal_parts, to_device
from warmstart.errors import InputError, nearest
from warmstart.layers.neurons import Neurons
from warmstart.layers.norms import batch_norms
from warmstart.methods.method import reset_optimizer_
from warmstart.network import eval_mode, require_optimizer, saved_buffers
from warmstart.precision import in_fp32
from warmstart.processes import local

OptimizerState = Literal["keep", "reset", "scale"]
Schedule = Literal["keep", "restart"]
BatchNorm = Literal["keep", "recalibrate"]

_SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta"}
"""Moments in units of the squared gradient (Adam, RMSprop, Adagrad, Adadelta): they scale with the square."""


@dataclass(frozen=True)
class StatePolicy:
    """What becomes of the state around the weights; the defaults are the paper's."""

    optimizer: Optimizer | None = None
    optimizer_state: OptimizerState = "keep"
    scheduler: LRScheduler | None = None
    schedule: Schedule = "keep"
    batch_norm: BatchNorm = "keep"

    def check(self, entries: Iterable[Neurons]) -> None:
        """Refuse what cannot be done, before anything changes.

        Args:
            entries: The parameters that will be scaled.

        Raises:
            InputError: If a choice is unknown, what it acts on is missing, or moments cannot be scaled.
        """
        for key, options in (
            ("optimizer_state", ("keep", "reset", "scale")),
            ("schedule", ("keep", "restart")),
            ("batch_norm", ("keep", "recalibrate")),
        ):
            if getattr(self, key) not in options:
                raise InputError(f"{key} is '{getattr(self, key)}'{nearest(str(getattr(self, key)), options)}")
        if self.optimizer is not None:
            require_optimizer(self.optimizer)
        elif self.optimizer_state != "keep":
            raise InputError(f"optimizer_state='{self.optimizer_state}' needs optimizer=")
        if self.schedule == "restart":
            _restartable(self.scheduler, self.optimizer)
        elif self.scheduler is not None and not hasattr(self.scheduler, "state_dict"):
            raise InputError(f"scheduler is a {type(self.scheduler).__name__}: pass one of torch.optim.lr_scheduler's")
        if self.optimizer is not None and self.optimizer_state != "keep":
            self._check_moments(self.optimizer, list(entries))

    def apply_(self, scales: Iterable[tuple[Neurons, Tensor]]) -> str:
        """Do to the optimizer what was chosen, in place.

        Args:
            scales: The parameters and the factors of their neurons.

        Returns:
            What became of it and of the schedule, in a sentence.
        """
        if self.optimizer is None and self.scheduler is None:
            return "optimizer and learning-rate schedule not touched"
        done = {"keep": "kept", "reset": "reset", "scale": "scaled with its neurons"}[self.optimizer_state]
        if self.optimizer is not None and self.optimizer_state == "reset":
            reset_optimizer_(self.optimizer)
        if self.optimizer is not None and self.optimizer_state == "scale":
            moments = [(*each, *found) for each in scales for found in _moments(self.optimizer, each[0])]
            for entry, scale, name, moment in moments:
                entry.view(local(moment)).mul_(scale.square() if name in _SQUARES else scale)
            done = done if moments else "empty, so nothing to scale"
        schedule = {"keep": "kept", "restart": "restarted"}[self.schedule]
        return f"optimizer state {done}, learning-rate schedule {schedule}"

    @contextmanager
    def schedule_restarted(self) -> Iterator[None]:
        """The schedule at its first step again where that was chosen, unless what follows fails.

        Yields:
            Nothing.
        """
        if self.scheduler is None or self.schedule == "keep":
            yield
            return
        put_back = _saved_schedule(self.scheduler)
        try:
            restart_schedule_(self.scheduler)
            yield
        except BaseException:
            put_back()
            raise

    def _check_moments(self, optimizer: Optimizer, entries: list[Neurons]) -> None:
        """Refuse an optimizer of another network, and moments that cannot be scaled."""
        if entries and not any(entry.parameter in _trained(optimizer) for entry in entries):
            raise InputError("optimizer holds no parameter that is scaled: pass the one that trains this model")
        if self.optimizer_state == "scale":
            for entry in entries:
                for name, moment in _moments(optimizer, entry):
                    if moment.shape != entry.parameter.shape or not moment.is_floating_point():
                        raise InputError(
                            f"{type(optimizer).__name__} keeps {name} of {entry.name} in another shape or as integers, "
                            "which cannot be scaled neuron by neuron: use optimizer_state='reset' or 'keep'"
                        )


def _moments(optimizer: Optimizer, entry: Neurons) -> Iterator[tuple[str, Tensor]]:
    """What an optimizer, or one that it wraps, keeps for each weight of a parameter, by name."""
    state: Mapping[str, Any] = optimizer.state.get(entry.parameter, {})
    yield from ((name, value) for name, value in state.items() if isinstance(value, Tensor) and value.dim() > 0)
    inner = getattr(optimizer, "base_optimizer", None)
    if isinstance(inner, Optimizer) and inner.state is not optimizer.state:
        yield from _moments(inner, entry)


def _restartable(scheduler: Any, optimizer: Optimizer | None) -> None:
    """Refuse a schedule that does not know where it began, or is another optimizer's."""
    if not isinstance(scheduler, LRScheduler):
        raise InputError("schedule='restart' needs scheduler=, one of torch.optim.lr_scheduler's")
    for part in _parts(scheduler):
        if not hasattr(part, "base_lrs"):
            raise InputError(
                f"{type(part).__name__} does not know its first learning rates: leave schedule out, and make a new one"
            )
    if optimizer is not None and not _trained(optimizer) & _trained(next(_parts(scheduler)).optimizer):
        raise InputError("scheduler is another optimizer's: pass the one of optimizer=")


def _trained(optimizer: Optimizer) -> set[Tensor]:
    return {parameter for group in optimizer.param_groups for parameter in group["params"]}


def _parts(scheduler: LRScheduler) -> Iterator[LRScheduler]:
    """The schedules that one is made of; itself, where it is no chain or sequence of others."""
    return (part for part in _with_parts(scheduler) if not isinstance(part, (ChainedScheduler, SequentialLR)))


def _with_parts(scheduler: LRScheduler) -> Iterator[LRScheduler]:
    """A schedule, and those inside it at any depth."""
    yield scheduler
    if isinstance(scheduler, (ChainedScheduler, SequentialLR)):
        for part in scheduler._schedulers:
            yield from _with_parts(part)


@torch.no_grad()
def restart_schedule_(scheduler: LRScheduler) -> None:
    """Put a learning-rate schedule back to its first step, in place.

    Args:
        scheduler: One of torch.optim.lr_scheduler's; its optimizer gets the initial learning rates.
    """
    _set_rates(next(_parts(scheduler)))
    _begin(scheduler)


def _begin(scheduler: LRScheduler) -> None:
    """What the schedule's constructor did, from the initial learning rates on."""
    if isinstance(scheduler, ChainedScheduler):
        for part in scheduler._schedulers:
            _begin(part)
        scheduler._last_lr = scheduler._schedulers[-1].get_last_lr()
    elif isinstance(scheduler, SequentialLR):
        for part in scheduler._schedulers:
            _begin(part)
        for part in _parts(scheduler):
            part.last_epoch -= 1  # each begins when its turn comes, and the first one now
        _set_rates(next(_parts(scheduler)))
        scheduler.last_epoch = 0
        scheduler._schedulers[0]._initial_step()
        scheduler._last_lr = scheduler._schedulers[0].get_last_lr()
    else:
        scheduler.last_epoch = -1
        scheduler._initial_step()


def _set_rates(scheduler: LRScheduler) -> None:
    for group, lr in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = group["initial_lr"] = lr


def _saved_schedule(scheduler: LRScheduler) -> Callable[[], None]:
    """What puts a schedule and its learning rates back."""
    groups = next(_parts(scheduler)).optimizer.param_groups
    saved = [(holder, dict(holder)) for holder in (*groups, *map(vars, _with_parts(scheduler)))]
    rates = [(group["lr"], group["lr"].clone()) for group in groups if isinstance(group["lr"], Tensor)]

    def put_back() -> None:
        for holder, values in saved:
            holder.update(values)
        for rate, value in rates:  # these are written to in place
            rate.copy_(value)

    return put_back


@torch.no_grad()
def recalibrate_(
    model: nn.Module, batches: Iterable[tuple[Any, float]], forward: Callable[[nn.Module, Any], Any]
) -> int:
    """Measure batch-norm statistics anew, as the weighted average over some batches, in place or not at all.

    Args:
        model: The network; its running statistics change, its weights and training flags do not. If anything fails,
            its buffers are what they were.
        batches: Batches where the network is, each with its weight, such as its number of examples.
        forward: ``forward(model, batch)`` runs the network.

    Returns:
        How many layers were measured.
    """
    norms = [layer for layer in batch_norms(model) if layer.track_running_stats]
    if not norms:
        return 0
    momenta = [layer.momentum for layer in norms]
    put_back, total = saved_buffers(model), 0.0
    try:
        with eval_mode(model):
            for layer in norms:
                layer.reset_running_stats()
                layer.train()
            for batch, weight in batches:
                total += weight
                for layer in norms:
                    layer.momentum = weight / total
                forward(model, batch)
    except BaseException:
        put_back()
        raise
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
    return len(norms)


def measure_norms_(
    model: nn.Module,
    batches: Iterable[Any],
    forward_loss: Callable[[nn.Module, Any], Any],
    micro_batch_size: int | None,
    at_least: int,
    full_precision: bool,
) -> int:
    """Measure batch-norm statistics anew over all examples of some batches alike, in place or not at all.

    Args:
        model: The network.
        batches: Any, wherever they are.
        forward_loss: Runs the network on a batch.
        micro_batch_size: Examples that fit into a forward pass; None for any number.
        at_least: Examples that have statistics: with 2, a batch of one is left out.
        full_precision: Whether autocast and TF32 are off meanwhile.

    Returns:
        How many layers were measured.
    """
    device = next(model.parameters()).device
    parts = (part for batch in batches for part in equal_parts(batch, micro_batch_size))
    here = ((to_device(part, device), examples) for part, examples in parts if examples >= at_least)
    with in_fp32(device.type) if full_precision else nullcontext():
        return recalibrate_(model, here, forward_loss)
