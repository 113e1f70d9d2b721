"""A method applied once for each arrival of data, in any loop; its state goes into the loop's own checkpoints."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.gradient_ema import Weight
from warmstart.integrations.ordered_batches import in_order, is_indexable, micro_batch_size, require_batches, seen
from warmstart.integrations.report_texts import already_applied, in_brief, in_one_line, state_notes
from warmstart.layers.neurons import Filter
from warmstart.layers.units import Units
from warmstart.losses import ForwardLoss, as_forward_loss
from warmstart.methods.lifecycle import Updates, checked_state, measured, prepare_, reported, require_prepared
from warmstart.methods.method import Method, Stage
from warmstart.methods.report import Report
from warmstart.methods.units_and_activations import Joined, UnitsOf, joined_activations
from warmstart.network import tensors_of
from warmstart.processes import Team, is_sharded, team_of, unwrapped
from warmstart.seeds import derive
from warmstart.undo import afterwards, all_or_nothing, keep, on_failure

LOG = logging.getLogger("warmstart")
"""All callbacks log here."""


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
        filter_fn: Filter | None = None,
        weight: Weight | None = None,
        seed: int = 0,
    ) -> None:
        """Say what to do with which data; nothing happens yet.

        Args:
            method: What to apply, such as ``ws.Dash()``.
            batches: All data so far, last month's and this month's, un-augmented. Of a loader over an indexable data
                set the data set counts, whose own order must be that of arrival: it is read from its end, in batches
                of the method's ``batch_size`` (1000 if that is None), computed in micro-batches of the loader's own
                size; its shuffling is undone. A list of indices as its ``sampler``, or of batches of them, is taken as
                that order, and nothing else is read. Anything else holds ready batches, oldest first.
            loss_fn: ``loss_fn(output, target)`` for batches ``(input, target)``.
            forward_loss: ``forward_loss(model, batch) -> scalar`` instead, a mean over the batch's examples.
            arrival: Names this arrival of data, such as ``"2026-07"``: the method is applied once for each name. The
                number of examples names it if not given, so give it where data may arrive in the midst of a run, or
                old data leave as new data come.
            new_examples: How many of the last examples are new; the report then names old data's share.
            make_model: Draws a fresh network, for methods that need one: cold, shrink-perturb[variant=ash].
            initial: The very first weights by name, for those that return to them: l2-init,
                shrink-perturb[variant=hare-tortoise].
            filter_fn: ``filter_fn(module, name)`` says which layers take part, for dash, shrink-perturb and fire.
            weight: ``weight(batch)``, what the loss is a mean over where that is not examples, tokens for instance;
                for dash.
            seed: Of the method's noise, which differs by arrival.

        Raises:
            InputError: If the method is none, there is no data, or an argument does not fit the method.
        """
        _require_method(method)
        for key, given in (("filter_fn", filter_fn), ("weight", weight)):
            if given is not None and key not in method.follows:
                raise InputError(f"{method} does not follow {key}: leave it out")
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
        self.filter_fn = filter_fn
        self.weight = weight
        self.seed = seed
        self.report: Report | None = None
        self._state: dict[str, Tensor] = {}  # the method's own
        self._applied: str | None = None  # for this arrival
        self._applied_by: str | None = None  # the method; None where a checkpoint does not say
        self._rest()

    def _rest(self) -> None:
        """Be outside of a stage, as before the first one, and after being copied or unpickled."""
        self._stage: Stage | None = None
        self._updates: Updates | None = None
        self._activations = Joined()  # of the current update
        self._hooks = ExitStack()
        weakref.finalize(self, self._hooks.close).atexit = False
        self._applied_to: weakref.ref[nn.Module] | None = None  # None: to the network of the loaded checkpoint

    def __getstate__(self) -> dict[str, Any]:
        of_stage = ("_stage", "_updates", "_activations", "_hooks", "_applied_to")
        return {name: value for name, value in vars(self).items() if name not in of_stage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._rest()

    def prepare(self, model: nn.Module) -> None:
        """Let a method that wants another kind of network change it; call it right after making the model.

        Before its weights are loaded, and before the optimizer, DistributedDataParallel, ``fully_shard`` or Accelerate
        take hold of it. A network that has been prepared, or a copy of one, stays as it is.

        Args:
            model: The network, changed in place; most methods change nothing.
        """
        prepare_(self.method, unwrapped(model))

    def apply_(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, *, step: int = 0
    ) -> Report | None:
        """Apply the method in place, unless that has been done for this arrival; call it right before training.

        In several processes all of them call it, with the same batches: they do the same work, and process 0's
        weights go to all, wrapped or not. Only where FSDP2 shards the model, each works on its share of every batch.

        Args:
            model: The network, with its old weights loaded; DistributedDataParallel, DataParallel and torch.compile
                around it do no harm.
            optimizer: Its optimizer, for the methods that look at it: dash leaves alone what it does not hold.
            step: Updates that the loop has made; more than 0 where it resumes.

        Returns:
            What was done; None if it had been done before.

        Raises:
            InputError: If something is missing or wrong; the model is bit for bit what it was.
        """
        if self.batches is None:
            raise InputError("WarmStart needs batches over all data so far: pass a DataLoader")
        forward_loss = self.forward_loss or as_forward_loss(None)
        return self._apply_(model, self.batches, forward_loss, optimizer, step=step)

    def after_backward(self, model: nn.Module, step: int) -> None:
        """Let a method that acts on every update see the gradients; call it once they are complete.

        So after the last micro-batch of an update, and after each of SAM's two passes.

        Args:
            model: The network, with gradients that carry no loss scale.
            step: Updates made before this one; noise depends on it alone, so that a resumed run repeats it.
        """
        self._updates_at(step).after_backward(unwrapped(model))
        self._activations.complete = True

    def after_step(self, model: nn.Module, step: int) -> None:
        """Let a method that acts on every update change the weights; call it after ``optimizer.step()``.

        Args:
            model: The network.
            step: Updates made before this one.
        """
        self._updates_at(step).after_step(unwrapped(model))
        self._activations.clear()

    @all_or_nothing
    def measured(self, model: nn.Module) -> nn.Module:
        """The network that is to be validated and served: the model itself, unless the method keeps another one.

        Args:
            model: The network that is trained; not changed.

        Returns:
            The model itself, without any wrapper, or a network that shares no memory with it.

        Raises:
            InputError: If the method would have to copy a network that FSDP2 shards.
        """
        model = unwrapped(model)
        if type(self.method).measured is not Method.measured and team_of(model)[1].sharded:
            raise InputError(f"{self.method} measures another network, which FSDP2 cannot copy: use DDP")
        with afterwards(partial(self._be_again, {})):
            self._hooks.close()  # so that a copy of the network has none
            return measured(self.method, model, self._state)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold.

        Returns:
            The arrival for which the method has been applied, the method and its report, in plain strings, numbers and
            lists, and under ``"state"`` the tensors that the method keeps, by name; empty before.
        """
        if self._applied is None or self.report is None:
            return {}
        if self._applied_to is not None and (model := self._applied_to()) is not None:
            checked_state(self.method, model, self._state)
        told = {"arrival": self._applied, "method": self._applied_by, "report": self.report.to_dict()}
        return {**told, "state": dict(self._state)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Remember what a checkpoint says.

        Args:
            state_dict: As `state_dict` gave it.

        Raises:
            InputError: If it is something else; what was remembered stays.
        """
        if not isinstance(state_dict, Mapping) or (state_dict and not {"arrival", "report"} <= state_dict.keys()):
            raise InputError(
                "this is no state of a WarmStart, which has an arrival and a report: pass its state_dict()"
            )
        self.report = Report.from_dict(state_dict["report"]) if state_dict else None
        self._applied = state_dict.get("arrival")
        self._applied_by = state_dict.get("method")
        self._applied_to = None
        self._state = {name: tensor.clone() for name, tensor in state_dict.get("state", {}).items()}

    @all_or_nothing
    def _apply_(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        forward_loss: ForwardLoss,
        optimizer: torch.optim.Optimizer | None,
        *,
        step: int,
    ) -> Report | None:
        model = unwrapped(model)
        if self.method.sees_activations and _processes() > 1:
            raise InputError(f"{self.method} sees activations, which differ between processes: train in one process")
        require_prepared(self.method, model, optimizer)
        done = self._is_applied(model, batches)
        arrival = self.arrival or _arrival_name(batches)
        on_failure(partial(self._be_again, dict(vars(self))))
        self._hooks.close()
        self._stage = self._stage_of(model, batches, forward_loss)
        self._stage.optimizer = optimizer
        has_state = optimizer is not None and (step > 0 or bool(optimizer.state))
        if not done:
            self._stage.generator.manual_seed(derive(self.seed, arrival, 0))
            keep(self._stage.state.values())
            with self._outside_training(model):
                report = _on_new_data(self.method, model, self._stage)
            self.report = report.with_notes(*state_notes(model, report, optimizer, has_state, step))
            self._applied_by = str(self.method)
        self._state = self._stage.state
        self._updates, self._activations = Updates(self.method, self._stage), Joined()
        self._watch(model)
        self._applied, self._applied_to = arrival, weakref.ref(model)
        if _processes() == 1 or dist.get_rank() == 0:
            self._log(done, arrival)
        return None if done else self.report

    def _log(self, done: bool, arrival: str) -> None:
        """Log the outcome: a warning if the report warns, if the method was not applied, or if all else is unseen."""
        if done or self.report is None:
            LOG.warning(already_applied(self.method, arrival))
        elif self.report.warnings:
            LOG.warning(in_brief(self.report))
        elif LOG.hasHandlers() or LOG.level:
            LOG.info(in_brief(self.report))
        else:  # nobody has set up logging, and Python then shows warnings alone
            LOG.warning(in_one_line(self.method, self.report))

    def _is_applied(self, model: nn.Module, batches: Iterable[Any]) -> bool:
        if self.batches is None and not is_indexable(batches):
            raise InputError("the training data cannot be read in order of arrival: pass WarmStart(..., batches=...)")
        if batches is not self.batches:  # else they were checked at first, and one's own sampler is drawn from for it
            require_batches(batches)
        same_model = self._applied_to is None or self._applied_to() is unwrapped(model)
        done = same_model and self._applied == (self.arrival or _arrival_name(batches))
        if done and self._applied_by not in {None, str(self.method)}:
            raise InputError(
                f"this arrival ({self._applied}) was treated with {self._applied_by}, not {self.method}: pass that "
                "method, or name another arrival, arrival='...'"
            )
        return done

    def _outside_training(self, model: nn.Module) -> AbstractContextManager[None]:
        """A context for forward passes that are not part of training: full precision."""
        return _in_full_precision(model)

    def _watch(self, model: nn.Module) -> None:
        """Register the hooks that show a method the activations it asks for; they hold no reference to self."""
        if self._stage is not None:
            joined = joined_activations(self._hooks, self.method, model, self._stage)
            joined.update(self._activations)
            joined.complete = self._activations.complete
            self._activations = joined

    def _be_again(self, was: dict[str, Any]) -> None:
        """Go back to earlier attributes, and to their hooks."""
        self._hooks.close()
        vars(self).update(was)
        if self._applied_to is not None and (model := self._applied_to()) is not None:
            self._watch(model)

    def _stage_of(self, model: nn.Module, batches: Iterable[Any], forward_loss: ForwardLoss) -> Stage:
        team = team_of(model)[1]
        device = next(model.parameters()).device

        def fresh() -> nn.Module:
            if self.make_model is None:
                raise InputError(f"{self.method} needs a fresh network: pass WarmStart(..., make_model=...)")
            drawn = self.make_model()
            prepare_(self.method, drawn)
            return drawn.to(device)

        def not_sharded() -> list[Units]:
            raise InputError(f"{self.method} reads units, which FSDP2 spreads over processes: use DDP")

        def batches_of(size: int | None) -> Sequence[Any]:
            return in_order(batches, size, team)

        units = UnitsOf(model, batches_of, forward_loss, partial(self._outside_training, model))
        of_another = self._applied_to is not None and self._applied_to() is not model
        state = {} if of_another else {name: tensor.to(device) for name, tensor in self._state.items()}
        if team.sharded:
            state = _NoState(str(self.method), state)
        first = None if self.initial is None else {name: tensor.to(device) for name, tensor in self.initial.items()}
        return Stage(
            number=2,
            seen=seen(batches),
            new=self.new_examples,
            batches=batches_of,
            forward_loss=forward_loss,
            fresh=fresh,
            initial=_Missing(str(self.method)) if first is None else first,
            generator=torch.Generator(),
            micro_batch_size=micro_batch_size(batches),
            filter_fn=self.filter_fn,
            weight=self.weight,
            state=state,
            units=not_sharded if team.sharded else units,
        )

    def _updates_at(self, step: int) -> Updates:
        if self._stage is None or self._updates is None or self._applied is None:
            raise InputError("call apply_(model) before the first update, in a resumed run too")
        self._stage.generator.manual_seed(derive(self.seed, self._applied, step + 1))
        self._updates.done = step
        return self._updates


def _require_method(method: Any) -> None:
    if not isinstance(method, Method):
        hint = "ws.parse_method('dash')" if isinstance(method, str) else "an instance such as ws.Dash()"
        raise InputError(f"method is {method!r}: pass {hint}")


class _Missing(Mapping[str, Tensor]):
    """First weights that were not passed: looking one up raises InputError."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __getitem__(self, name: str) -> Tensor:
        raise InputError(f"{self.method} returns to the first weights: pass WarmStart(..., initial=first_state_dict)")

    def __iter__(self) -> Iterator[str]:
        self[""]
        return iter(())

    def __len__(self) -> int:
        return 0


class _NoState(dict[str, Tensor]):
    """A method's state where FSDP2 shards the model: writing to it, or restoring it, raises InputError."""

    def __init__(self, method: str, restored: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._method = method
        if restored:
            self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise InputError(f"{self._method} keeps state, which is not saved with an FSDP2 model: use DDP")

    __setitem__ = setdefault = update = __ior__ = _refuse


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _on_new_data(method: Method, model: nn.Module, stage: Stage) -> Report:
    """Apply the method; where each process holds the whole model, copy that of process 0 to all afterwards."""
    # Not decided by the DDP wrapper, since frameworks pass the model without it.
    if not type(method).__module__.startswith("warmstart.methods."):  # ours keep what they change
        keep(tensors_of(model).values())
    if _processes() == 1 or any(is_sharded(parameter) for parameter in model.parameters()):
        return reported(method, model, stage)
    team = Team(_processes(), dist.group.WORLD, next(model.parameters()).device)
    report = team.attempt(lambda: reported(method, model, stage))
    keep(tensors_of(model).values())
    for tensor in (*tensors_of(model).values(), *stage.state.values()):
        tensor.detach().copy_(team.broadcast_tensor(tensor))
    return report


@contextmanager
def _in_full_precision(model: nn.Module) -> Iterator[None]:
    """Use the model's own forward meanwhile, without the autocast that Accelerate wraps it in."""
    wrapped, original = (vars(model).get(name) for name in ("forward", "_original_forward"))
    if wrapped is None or original is None:
        yield
        return
    with afterwards(partial(vars(model).__setitem__, "forward", wrapped)):
        vars(model)["forward"] = original
        yield


def _arrival_name(batches: Iterable[Any]) -> str:
    """The name of an arrival that the user has not named."""
    if is_indexable(batches):
        return f"{seen(batches):,} examples"
    try:
        return f"{len(batches):,} batches"  # type: ignore[arg-type]  # a missing length is handled below
    except TypeError:
        raise InputError(
            "batches have no length, which would name this arrival: pass WarmStart(..., arrival='2026-07')"
        ) from None
