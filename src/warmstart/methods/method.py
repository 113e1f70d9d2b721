"""The base of all methods, a frozen dataclass of settings, and the stage that its calls are given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.layers.neurons import Filter
from warmstart.layers.units import Units
from warmstart.losses import ForwardLoss
from warmstart.methods.report import Report, plain_number
from warmstart.processes import local
from warmstart.setting import Search, Setting
from warmstart.undo import on_failure


def _no_units() -> list[Units]:
    raise InputError("this stage was made without a network to read: pass Stage(..., units=...)")


@dataclass
class Stage:
    """What a method may ask for when new data arrives and while a network trains on it."""

    number: int
    """From 1; methods act from the second on."""
    seen: int | None
    """Examples that have arrived so far, the new ones included; None where nobody knows."""
    new: int | None
    """Examples that arrived with this stage; None where nobody knows."""
    batches: Callable[[int | None], Sequence[Any]]
    """``batches(size)``: all examples seen so far, oldest first, un-augmented; None means a stage's size."""
    forward_loss: ForwardLoss
    """``forward_loss(model, batch) -> scalar``, the training loss."""
    fresh: Callable[[], nn.Module]
    """Draws a new network of the same shape, each time another one, on the model's device; in `on_new_data` alone."""
    initial: Mapping[str, Tensor]
    """The run's first weights, prepared and before any training: its ``state_dict``."""
    generator: torch.Generator
    """The method's own source of randomness, on the CPU."""
    optimizer: torch.optim.Optimizer | None = None
    """The optimizer that trains, its state included where it goes on; None where nobody has said which."""
    micro_batch_size: int | None = None
    """Examples that fit into one forward and backward pass; None for any number."""
    filter_fn: Filter | None = None
    """``filter_fn(module, name)``: which layers the method changes, if it `follows` this; None for all."""
    weight: Callable[[Any], float] | None = None
    """``weight(batch)``: what the loss is a mean over, if the method `follows` this; None for examples."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """The method's own tensors. What it puts here is saved and restored with the run, and lies on the model's device
    then; it is empty until the method fills it, outlives the stage, and must share no memory with the model."""
    step: int = 0
    """During training, the updates made before this one in this stage; in `WarmStart` the loop's own count."""
    updates: int | None = None
    """Updates that the stage will have; None where its end is not known."""
    updates_per_epoch: int | None = None
    """Updates in one pass over the examples seen so far; None where nobody knows, as in a loop of your own."""
    units: Callable[[], list[Units]] = _no_units
    """``units()``: the network's units, each with its incoming and outgoing weights, read from its graph once."""
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    """During training, layer name -> (rows, units), of the latest pass over the batch that is trained on (SAM makes
    two), all its micro-batches together. Empty unless the method's `sees_activations` asks for them."""


@dataclass(frozen=True)
class Method:
    """Base of all methods: a subclass names itself, and overrides what it does differently from warm.

    Settings are the fields; ``dash[alpha=0.1]`` on the command line sets them. A `Setting` in a field's annotation says
    what it is, what it is checked for, and where tuning searches it.
    """

    name: ClassVar[str] = ""
    """As on the command line."""
    summary: ClassVar[str] = ""
    """One line: what it does."""
    source: ClassVar[str] = ""
    """Where it comes from."""
    year: ClassVar[int] = 0
    """When it was published; 0 where it was always there."""
    acts: ClassVar[str] = ""
    """When."""
    cost: ClassVar[str] = ""
    """In time and memory, besides training."""
    limits: ClassVar[str] = ""
    """Where it does not apply."""
    page: ClassVar[str] = ""
    """Where docs/ has more of it."""
    variants: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Value of the setting ``variant`` -> whose definition it is; none where there is one definition."""
    sees_activations: ClassVar[bool] = False
    """Whether `Stage.activations` is filled; it costs a copy of each layer's output."""
    follows: ClassVar[Collection[str]] = ()
    """Which of `Stage.filter_fn` and `Stage.weight` it follows; a user who gives another one is told."""

    def __post_init__(self) -> None:
        """Check all settings that say their range; InputError about the first that is wrong."""
        self.check(**{name: getattr(self, name) for name in self.described()})

    @classmethod
    def described(cls) -> dict[str, Setting]:
        """Each setting that is described by a `Setting`, by its field's name, in the order of the fields."""
        return {name: setting for name, (_, setting) in cls._typed_settings().items()}

    @classmethod
    def check(cls, **values: Any) -> None:
        """Raise InputError unless each value is of its setting's type and in its range."""
        for name, value in values.items():
            kind, setting = cls._typed_settings()[name]
            setting.check_typed(kind, name, value)

    @classmethod
    def _typed_settings(cls) -> dict[str, tuple[Any, Setting]]:
        kind: Any = cls  # a class can be hashed, which mypy does not see of a dataclass's
        return _typed_settings_of(kind)

    def prepare(self, model: nn.Module) -> None:
        """Change a new network before anything is made of it: its norm layers, its activations.

        Called once for each network that is made, before its optimizer is: for the run's own, and for those that
        `Stage.fresh` draws.

        Args:
            model: The network as it was made, changed in place. What is put into it may stay on the CPU.
        """

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Act when new data has arrived, before training on it; called from the second stage on.

        Args:
            model: The network, changed in place.
            stage: What has arrived.

        Returns:
            What was done.
        """
        now = "nothing changed now: it acts on updates" if self.acts_on_updates else "nothing changed: training goes on"
        return Report(self.name, self.settings(), notes=(now,))

    def after_backward(self, model: nn.Module, stage: Stage) -> None:
        """Act before an update; called after each ``backward()``, so twice in an update of SAM.

        Weights, moments and state may change as well; a rate, ``stage.optimizer.param_groups[i]["lr"]``, that is
        changed here holds for this update alone, and the loop's own is put back.

        Args:
            model: The network, with its gradients in ``.grad``.
            stage: The stage that is being trained.
        """

    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Act on weights, moments and state after each update of the optimizer.

        Args:
            model: The network, changed in place.
            stage: The stage that is being trained.
        """

    def measured(self, model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
        """Name the network that is measured and served.

        Args:
            model: The network that is trained; not changed.
            state: What the method keeps, as in `Stage.state`; empty before the method has filled it.

        Returns:
            The network itself, unless the method keeps another one: then one that shares no memory with it.
        """
        return model

    @property
    def search(self) -> Mapping[str, Search]:
        """Where `compare --tune` searches which of the settings, by the field's name: as their `Setting` says."""
        return {name: setting.search for name, setting in self.described().items() if setting.search is not None}

    def examples_read(self, seen: int, batch: int) -> float:
        """Of how many examples it takes gradients when data arrives, for estimates of time.

        Args:
            seen: Examples that have arrived so far.
            batch: The size of ``stage.batches(None)``.

        Returns:
            None of them, unless a method says otherwise.
        """
        return 0

    @property
    def acts_on_updates(self) -> bool:
        """Whether a training loop must call `after_backward` and `after_step`."""
        kind = type(self)
        return kind.after_backward is not Method.after_backward or kind.after_step is not Method.after_step

    def settings(self) -> dict[str, Any]:
        """The settings by name.

        Returns:
            Field name -> value, as the class takes them. Numbers are Python's own, and a float given as 0 is 0.0, as
            from the command line, so that one method has one name.
        """
        types = get_type_hints(type(self))
        return {field.name: _typed(getattr(self, field.name), types[field.name]) for field in fields(self)}

    def __str__(self) -> str:
        """The name as typed on the command line, with the settings that differ from the defaults."""
        usual = [field.default for field in fields(self)]
        settings = zip(self.settings().items(), usual, strict=True)
        changed = [f"{name.rstrip('_')}={value}" for (name, value), default in settings if value != default]
        return f"{self.name}[{','.join(changed)}]" if changed else self.name


@cache
def _typed_settings_of(kind: type[Method]) -> dict[str, tuple[Any, Setting]]:
    """Field name -> its type, and the `Setting` in its annotation or that of the class which it overrides."""
    found: dict[str, tuple[Any, Setting]] = {}
    for base in reversed(kind.__mro__):
        for name, annotated in get_type_hints(base, include_extras=True).items():
            of_type, *notes = get_args(annotated) if get_origin(annotated) is Annotated else (None,)
            for setting in (note for note in notes if isinstance(note, Setting)):
                found[name] = (of_type, setting)
    return {one.name: found[one.name] for one in fields(kind) if one.name in found}


def _typed(value: Any, wanted: Any) -> Any:
    options, value = get_args(wanted) or (wanted,), plain_number(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and float in options and int not in options else value


def require_own_memory(model: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise InputError if one of the tensors is the model's own parameter, and so would change with it."""
    for name, parameter in model.named_parameters():
        if name in tensors and 0 != local(tensors[name]).data_ptr() == local(parameter).data_ptr():
            raise InputError(f"{what} shares the memory of {name} with the model, and changes with it: pass a copy")


def first_value(initial: Mapping[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    """The first value of a parameter; InputError if there is none of its shape."""
    first = initial.get(name)
    if first is None or first.shape != parameter.shape:
        raise InputError(f"initial holds no first value for {name} of shape {tuple(parameter.shape)}")
    return first


def forget_(optimizer: torch.optim.Optimizer, parameters: Collection[nn.Parameter]) -> None:
    """Clear an optimizer's state of some parameters, and that of its ``base_optimizer`` (SAM), in place."""
    for parameter in parameters:
        if parameter in optimizer.state:
            on_failure(partial(optimizer.state.__setitem__, parameter, optimizer.state[parameter]))
            del optimizer.state[parameter]
    if hasattr(optimizer, "base_optimizer"):
        forget_(optimizer.base_optimizer, parameters)


def has_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer, or the ``base_optimizer`` in it, keeps anything: a new one does not."""
    return bool(optimizer.state) or (hasattr(optimizer, "base_optimizer") and has_state(optimizer.base_optimizer))


def reset_optimizer_(optimizer: torch.optim.Optimizer) -> None:
    """Clear an optimizer's state, and that of its ``base_optimizer`` (SAM), in place; learning rates stay."""
    on_failure(partial(optimizer.state.update, dict(optimizer.state)))
    optimizer.state.clear()
    for group in optimizer.param_groups:
        if "step" in group:  # where the updates are counted for a whole group, as in Muon
            on_failure(partial(group.__setitem__, "step", group["step"]))
            group["step"] = 0
    if hasattr(optimizer, "base_optimizer"):
        reset_optimizer_(optimizer.base_optimizer)
