"""What a method sees of the network that it changes: its units, and their activations while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.batches import micro_batches, to_device
from warmstart.errors import InputError
from warmstart.layers.units import Units, units, watch
from warmstart.losses import ForwardLoss
from warmstart.methods.method import Method, Stage


class UnitsOf:
    """A network's units, read when they are first asked for, from a forward pass that leaves no trace.

    Attributes:
        entered: Names of the modules that the pass called from outside of any other: ``""`` where it called the network
            itself, and not, as Lightning does, modules in it. Empty before.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[int | None], Iterable[Any]],
        forward_loss: ForwardLoss,
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            model: The network, on one device.
            batches: As in `Stage`; two of the newest examples do. Of what can only be iterated over, the first batch is
                taken.
            forward_loss: As in `Stage`.
            aside: A context in which a forward pass belongs to no training.
        """
        self.entered: tuple[str, ...] = ()
        self._pass: tuple[Any, ...] | None = (model, batches, forward_loss, aside)
        self._found: list[Units] = []

    def __call__(self) -> list[Units]:
        """The units, layer by layer in the order in which they run.

        Returns:
            What `warmstart.layers.units.units` finds.
        """
        if self._pass is not None:
            model, batches, forward_loss, aside = self._pass
            with aside(), torch.random.fork_rng(devices=[]):
                newest = batches(2)
                batch = _two_of(newest[-1] if isinstance(newest, Sequence) else next(iter(newest)))
                batch = to_device(batch, next(model.parameters()).device)
                with _outermost(model) as entered:
                    self._found, _ = units(model, lambda: forward_loss(model, batch))
            self.entered = tuple(dict.fromkeys(entered))
            self._pass = None  # data and loss may go
        return self._found

    @property
    def read(self) -> bool:
        """Whether they have been asked for."""
        return self._pass is None


def _two_of(batch: Any) -> Any:
    """A batch's first two examples; all of it where its tensors do not agree in what an example is."""
    try:
        return next(micro_batches(batch, 2))[0]
    except InputError:
        return batch


@contextmanager
def _outermost(model: nn.Module) -> Iterator[list[str]]:
    """The names of modules that are called meanwhile, those called by other ones left out."""
    names: list[str] = []
    depth = 0

    def hooks(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(*_: Any) -> None:
            nonlocal depth
            if depth == 0:
                names.append(name)
            depth += 1

        def leave(*_: Any) -> None:
            nonlocal depth
            depth -= 1

        return enter, leave

    handles = []
    try:
        for name, layer in model.named_modules():
            enter, leave = hooks(name)
            handles += [layer.register_forward_pre_hook(enter, prepend=True)]
            handles += [layer.register_forward_hook(leave, always_call=True)]
        yield names
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def latest_activations(method: Method, model: nn.Module, stage: Stage) -> Iterator[dict[str, Tensor]]:
    """Let a method that asks for it see the activations of each forward pass.

    Args:
        method: Any method; nothing is hooked to the network for one that does not ask.
        model: The network.
        stage: What the method is told; its `activations` are what is yielded.

    Yields:
        Layer name -> (rows, units), detached, of the latest pass; hooks write into it.
    """
    with ExitStack() as stack:
        seen: dict[str, Tensor] = {}
        if method.sees_activations:
            device = next(model.parameters()).device
            seen = stack.enter_context(watch(model, [_seen_from("", layer, device) for layer in stage.units()]))
        stage.activations = seen
        yield seen


@contextmanager
def joined_activations(method: Method, model: nn.Module, stage: Stage) -> Iterator[dict[str, Tensor]]:
    """Let a method that asks for it see the activations of all passes of an update, its micro-batches joined.

    Args:
        method: Any method; nothing is hooked to the network for one that does not ask.
        model: The network; of passes in eval mode or without gradients nothing is kept.
        stage: What the method is told; its `activations` are what is yielded.

    Yields:
        Layer name -> (rows, units), detached, since it was cleared; hooks write into it.
    """
    joined: dict[str, Tensor] = {}

    def gather(seen: dict[str, Tensor], entered: nn.Module, *_: Any) -> None:
        if entered.training and torch.is_grad_enabled():
            for name, rows in seen.items():
                joined[name] = torch.cat([joined[name], rows]) if name in joined else rows
        seen.clear()

    stage.activations = joined
    layers = stage.units() if method.sees_activations else []
    names = stage.units.entered if isinstance(stage.units, UnitsOf) else ("",)
    del stage  # which the hooks must not keep alive
    with ExitStack() as stack:
        for name in names if layers else ():
            entered = model.get_submodule(name)
            inside = [_seen_from(name, layer, next(model.parameters()).device) for layer in layers]
            seen = stack.enter_context(watch(entered, inside))
            stack.callback(entered.register_forward_hook(partial(gather, seen)).remove)
        yield joined


def _seen_from(entered: str, layer: Units, device: torch.device) -> Units:
    """A layer's units with the place where they are seen named from a module on; without one if it is not in there."""
    place = layer.activation
    if place is None or (entered not in ("", place.module) and not place.module.startswith(f"{entered}.")):
        return replace(layer, activation=None)
    inside = place.module.removeprefix(entered).removeprefix(".")
    # On the device, since nothing can be moved there while a GPU records.
    return replace(layer, activation=replace(place, module=inside, at=place.at.to(device)))
