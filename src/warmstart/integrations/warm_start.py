"""A method applied once for each arrival of data, in any loop; its state goes into the loop's own checkpoints."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.integrations.ordered_batches import in_order, is_indexable, micro_batch_size, require_batches, seen
from warmstart.layers.norms import batch_norms
from warmstart.losses import ForwardLoss, as_forward_loss
from warmstart.methods.cold import tensors_of
from warmstart.methods.method import Method, Stage
from warmstart.methods.report import Report
from warmstart.processes import Team, is_sharded, team_of, unwrapped
from warmstart.seeds import derive
from warmstart.wording import counted

LOG = logging.getLogger("warmstart")
"""Where all callbacks say what was done."""


class WarmStart:
    """Applies a method to a network that goes on from old weights, exactly once for each arrival of data.

    Put its `state_dict` into your checkpoint, and a run that resumes from there does not apply the method again. For
    Accelerate, ``accelerator.register_for_checkpointing(warm_start)`` does so.

    Attributes:
        report: What the method did, also after resuming; None before.
    """

    def __init__(
        self,
        method: Method,
        batches: Iterable[Any] | None = None,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        *,
        forward_loss: ForwardLoss | None = None,
        arrival: str | None = None,
        new_examples: int | None = None,
        make_model: Callable[[], nn.Module] | None = None,
        initial: Mapping[str, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        """Say what to do with which data; nothing happens yet.

        Args:
            method: What to apply, such as ``ws.Dash()``.
            batches: All data so far, last month's and this month's, un-augmented. Of a loader over an indexable data
                set the data set counts, whose own order must be that of arrival: it is read from its end, in batches
                of the method's ``batch_size`` (1000 if that is None), computed in micro-batches of the loader's own
                size; its shuffling is undone. Anything else holds ready batches, oldest first.
            loss_fn: ``loss_fn(output, target)`` for batches ``(input, target)``.
            forward_loss: ``forward_loss(model, batch) -> scalar`` instead, a mean over the batch's examples.
            arrival: Names this arrival of data, such as ``"2026-07"``: the method is applied once for each name. The
                number of examples names it if not given, so give it where data may arrive in the midst of a run, or
                old data leave as new data come.
            new_examples: How many of the last examples are new; the report then names old data's share.
            make_model: Draws a fresh network, for methods that need one: cold, shrink-perturb[variant=ash].
            initial: The very first weights by name, for those that return to them: l2-init,
                shrink-perturb[variant=hare-tortoise].
            seed: Of the method's noise, which differs by arrival.

        Raises:
            InputError: If the method is none, there is no data, or the two do not fit together.
        """
        _require_method(method)
        if batches is not None:
            require_batches(batches)
            if not is_indexable(batches) and (size := method.settings().get("batch_size")) is not None:
                raise InputError(f"{method} asks for batches of {size}, but batches are ready: leave batch_size out")
        self.method = method
        self.batches = batches
        self.forward_loss = None if loss_fn is forward_loss is None else as_forward_loss(loss_fn, forward_loss)
        self.arrival = arrival
        self.new_examples = new_examples
        self.make_model = make_model
        self.initial = initial
        self.seed = seed
        self.report: Report | None = None
        self._stage: Stage | None = None
        self._applied: str | None = None  # the arrival for which it has been applied
        self._applied_to: weakref.ref[nn.Module] | None = None  # None: to the one whose checkpoint says so

    def apply_(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, *, step: int = 0
    ) -> Report | None:
        """Apply the method in place, unless that has been done for this arrival; call it right before training.

        In several processes all of them call it, with the same batches: they do the same work, and process 0's
        weights go to all, wrapped or not. Only where FSDP2 shards the model, each works on its share of every batch.

        Args:
            model: The network, with its old weights loaded; DistributedDataParallel around it does no harm.
            optimizer: Its optimizer, for the methods that look at it.
            step: Updates that the loop has made; more than 0 where it resumes.

        Returns:
            What was done; None if it had been done before.

        Raises:
            InputError: If something is missing or wrong; the model is bit for bit what it was.
        """
        if self.batches is None:
            raise InputError("WarmStart needs batches over all data so far: pass a DataLoader")
        forward_loss = self.forward_loss or as_forward_loss(None)
        return self._apply_(unwrapped(model), self.batches, forward_loss, optimizer, step=step)

    def after_backward(self, model: nn.Module, step: int) -> None:
        """Let a method that acts on every update see the gradients; call it after the last ``backward()`` of an update.

        Args:
            model: The network, with gradients that carry no loss scale.
            step: Updates made before this one; noise depends on it alone, so that a resumed run repeats it.
        """
        self.method.after_backward(unwrapped(model), self._stage_at(step))

    def after_step(self, model: nn.Module, step: int) -> None:
        """Let a method that acts on every update change the weights; call it after ``optimizer.step()``.

        Args:
            model: The network.
            step: Updates made before this one.
        """
        self.method.after_step(unwrapped(model), self._stage_at(step))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold.

        Returns:
            Plain strings, numbers and lists: the arrival for which the method has been applied and its report; empty
            before.
        """
        if self._applied is None or self.report is None:
            return {}
        return {"arrival": self._applied, "report": self.report.to_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Remember what a checkpoint says.

        Args:
            state_dict: As `state_dict` gave it.
        """
        self._applied = state_dict.get("arrival")
        self._applied_to = None
        self.report = Report.from_dict(state_dict["report"]) if state_dict else None

    def _apply_(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        forward_loss: ForwardLoss,
        optimizer: torch.optim.Optimizer | None,
        *,
        step: int,
    ) -> Report | None:
        done = self._is_applied(model, batches)
        arrival = self.arrival or _name(batches)
        self._stage = self._stage_of(model, batches, forward_loss)
        goes_on = optimizer is not None and (step > 0 or bool(optimizer.state))
        if not done:
            self._stage.generator.manual_seed(derive(self.seed, arrival, 0))
            self._stage.optimizer = optimizer if goes_on else None
            with _in_full_precision(model):
                report = _on_new_data(self.method, model, self._stage)
            self.report = report.with_notes(*_state_notes(model, report, optimizer, goes_on, step))
        self._stage.optimizer = optimizer
        self._applied, self._applied_to = arrival, weakref.ref(model)
        if _processes() == 1 or dist.get_rank() == 0:
            self._say(done, arrival)
        return None if done else self.report

    def _say(self, done: bool, arrival: str) -> None:
        """A line that should be seen is a warning, which Python shows unless told otherwise."""
        if done or self.report is None:
            LOG.warning(_not_again(self.method, arrival))
        else:
            warns = bool(self.report.warnings)
            LOG.log(logging.WARNING if warns else logging.INFO, _in_short(self.report))

    def _is_applied(self, model: nn.Module, batches: Iterable[Any]) -> bool:
        if self.batches is None and not is_indexable(batches):
            raise InputError("the training data cannot be read in order of arrival: pass WarmStart(..., batches=...)")
        require_batches(batches)
        same_model = self._applied_to is None or self._applied_to() is model
        return same_model and self._applied == (self.arrival or _name(batches))

    def _stage_of(self, model: nn.Module, batches: Iterable[Any], forward_loss: ForwardLoss) -> Stage:
        team = team_of(model)[1]
        device = next(model.parameters()).device

        def fresh() -> nn.Module:
            if self.make_model is None:
                raise InputError(f"{self.method} draws a fresh network: pass WarmStart(..., make_model=...)")
            return self.make_model().to(device)

        first = None if self.initial is None else {name: tensor.to(device) for name, tensor in self.initial.items()}
        return Stage(
            number=2,
            seen=seen(batches),
            new=self.new_examples,
            batches=lambda size: in_order(batches, size, team),
            forward_loss=forward_loss,
            fresh=fresh,
            initial=_Missing(str(self.method)) if first is None else first,
            generator=torch.Generator(),
            micro_batch_size=micro_batch_size(batches),
        )

    def _stage_at(self, step: int) -> Stage:
        if self._stage is None or self._applied is None:
            raise InputError("call apply_(model) before the first update: it also says what a resumed run goes on with")
        self._stage.generator.manual_seed(derive(self.seed, self._applied, step + 1))
        return self._stage


def _require_method(method: Any) -> None:
    if not isinstance(method, Method):
        hint = "ws.parse_method('dash')" if isinstance(method, str) else "an instance such as ws.Dash()"
        raise InputError(f"method is {method!r}: pass {hint}")


class _Missing(Mapping[str, Tensor]):
    """First weights that nobody gave: whoever looks at them is told."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __getitem__(self, name: str) -> Tensor:
        raise InputError(f"{self.method} returns to the first weights: pass WarmStart(..., initial=first_state_dict)")

    def __iter__(self) -> Iterator[str]:
        self[""]
        return iter(())

    def __len__(self) -> int:
        return 0


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _on_new_data(method: Method, model: nn.Module, stage: Stage) -> Report:
    """Act, and where each process holds the whole model, make sure that all hold the same one afterwards."""
    # The wrapper does not tell: frameworks hand over the model without it.
    if _processes() == 1 or any(is_sharded(parameter) for parameter in model.parameters()):
        return method.on_new_data(model, stage)
    team = Team(_processes(), dist.group.WORLD, next(model.parameters()).device)
    report = team.attempt(lambda: method.on_new_data(model, stage))
    for tensor in tensors_of(model).values():
        tensor.detach().copy_(team.firsts(tensor))
    return report


@contextmanager
def _in_full_precision(model: nn.Module) -> Iterator[None]:
    """The model's own forward, where Accelerate has put autocast around it."""
    wrapped, original = (vars(model).get(name) for name in ("forward", "_original_forward"))
    if wrapped is None or original is None:
        yield
        return
    vars(model)["forward"] = original
    try:
        yield
    finally:
        vars(model)["forward"] = wrapped


def _name(batches: Iterable[Any]) -> str:
    """What an arrival is called that nobody has named."""
    if is_indexable(batches):
        return f"{seen(batches):,} examples"
    try:
        return f"{len(batches):,} batches"  # type: ignore[arg-type]  # has none: that is what is found out
    except TypeError:
        raise InputError(
            "batches have no length to know them by: name this arrival, WarmStart(..., arrival='2026-07')"
        ) from None


def _state_notes(
    model: nn.Module, report: Report, optimizer: torch.optim.Optimizer | None, goes_on: bool, step: int
) -> Iterator[str]:
    """What became of everything beside the weights."""
    if optimizer is not None and step > 0:
        yield f"a fit resumed at step {step}: optimizer state and learning-rate schedule go on from there"
    elif optimizer is not None:
        yield "the optimizer goes on with its state" if goes_on else "a new fit: fresh optimizer state and schedule"
    if report.layers and batch_norms(model) and not any("batch-norm" in note for note in report.notes):
        yield "batch-norm statistics kept: train before predicting"


def totals(report: Report) -> dict[str, float]:
    """A report in a few numbers, for loggers.

    Args:
        report: What a method did.

    Returns:
        Name -> number: the parameters that were changed and those left alone; of a method that scales also its
        neurons, their mean scale and the share at the lower bound.
    """
    numbers: dict[str, float] = {
        "warmstart/changed": len(report.layers),
        "warmstart/left_alone": len(report.left_alone),
    }
    if neurons := sum(layer.neurons for layer in report.scales):
        numbers["warmstart/neurons"] = neurons
        numbers["warmstart/scale"] = sum(layer.mean * layer.neurons for layer in report.scales) / neurons
        numbers["warmstart/at_lambda"] = sum(layer.at_lambda * layer.neurons for layer in report.scales) / neurons
    return numbers


def _in_short(report: Report) -> str:
    """The report without its rows."""
    if not report.layers:
        return str(report)
    numbers, left = totals(report), counted(len(report.left_alone), "parameter")
    done = f"{counted(len(report.layers), 'parameter')} changed"
    if report.scales:
        done = f"{numbers['warmstart/neurons']:,} neurons scaled by {numbers['warmstart/scale']:.3f} on average"
    short = replace(report, layers=(), left_alone=(), notes=(f"{done}, {left} left alone", *report.notes))
    return str(short)


def _not_again(method: Method, arrival: str) -> str:
    return f"{method} has been applied for this arrival ({arrival}): not again; new data need another arrival='...'"
