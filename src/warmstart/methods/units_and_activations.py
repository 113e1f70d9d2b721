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
from warmstart.layers.units import Units, units, watch, watch_until
from warmstart.losses import ForwardLoss
from warmstart.methods.method import Method, Stage
from warmstart.undo import on_failure


class UnitsOf:
    """A network's units, found at the first call by a forward pass that leaves the network unchanged."""

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[int | None], Iterable[Any]],
        forward_loss: ForwardLoss,
        outside_training: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Prepare; no forward pass is run yet.

        ``batches`` is as in `Stage`, and two of the newest examples are used; of an iterable, the first batch.
        ``outside_training`` makes a context for a forward pass that is not part of training.
        """
        self.entered: tuple[str, ...] = ()
        """Modules that the pass called directly: ``""`` for the network, others where it called modules of it."""
        self._pass: tuple[Any, ...] | None = (model, batches, forward_loss, outside_training)
        self._found: list[Units] = []

    def __call__(self) -> list[Units]:
        """The units of all layers, in the order in which these run, as `warmstart.layers.units.units` finds them."""
        if self._pass is not None:
            model, batches, forward_loss, outside_training = self._pass
            with outside_training(), torch.random.fork_rng(devices=[]):
                newest = batches(2)
                batch = _two_of(newest[-1] if isinstance(newest, Sequence) else next(iter(newest)))
                batch = to_device(batch, next(model.parameters()).device)
                with _outermost(model) as entered:
                    self._found, _ = units(model, lambda: forward_loss(model, batch))
            self.entered = tuple(dict.fromkeys(entered))
            self._pass = None  # frees data and loss
        return self._found

    @property
    def read(self) -> bool:
        """Whether they have been found."""
        return self._pass is None


def _two_of(batch: Any) -> Any:
    """A batch's first two examples; all of it where its tensors do not agree on the number of examples."""
    try:
        return next(micro_batches(batch, 2))[0]
    except InputError:
        return batch


@contextmanager
def _outermost(model: nn.Module) -> Iterator[list[str]]:
    """The names of modules that are called meanwhile, except those called by other modules."""
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

    with ExitStack() as stack:
        on_failure(stack.close)
        for name, layer in model.named_modules():
            enter, leave = hooks(name)
            stack.callback(layer.register_forward_pre_hook(enter, prepend=True).remove)
            stack.callback(layer.register_forward_hook(leave, always_call=True).remove)
        yield names


@contextmanager
def latest_activations(method: Method, model: nn.Module, stage: Stage) -> Iterator[dict[str, Tensor]]:
    """Set `Stage.activations` to those of the latest forward pass, if the method asks for activations.

    Yields:
        Layer name -> (rows, units), detached; hooks write into it.
    """
    with ExitStack() as stack:
        seen: dict[str, Tensor] = {}
        if method.sees_activations:
            device = next(model.parameters()).device
            seen = stack.enter_context(watch(model, [_seen_from("", layer, device) for layer in stage.units()]))
        stage.activations = seen
        yield seen


class Joined(dict[str, Tensor]):
    """Layer name -> (rows, units), detached, of all micro-batches of one backward pass."""

    complete: bool = False
    """Whether the method has seen them, so that the next forward pass begins anew: SAM's second one, say."""


def joined_activations(stack: ExitStack, method: Method, model: nn.Module, stage: Stage) -> Joined:
    """Set `Stage.activations` to those of all micro-batches of a backward pass, joined, if the method asks for them.

    Passes in eval mode or without gradients are not kept.

    Returns:
        The activations; until ``stack`` is closed hooks write into them. The caller says when they are complete.
    """
    joined = Joined()

    def gather(seen: dict[str, Tensor], entered: nn.Module, *_: Any) -> None:
        if entered.training and torch.is_grad_enabled():
            if joined.complete:
                joined.clear()
                joined.complete = False
            for name, rows in seen.items():
                joined[name] = torch.cat([joined[name], rows]) if name in joined else rows
        seen.clear()

    stage.activations = joined
    layers = stage.units() if method.sees_activations else []
    names = stage.units.entered if isinstance(stage.units, UnitsOf) else ("",)
    del stage  # which the hooks must not keep alive
    for name in names if layers else ():
        entered = model.get_submodule(name)
        inside = [_seen_from(name, layer, next(model.parameters()).device) for layer in layers]
        seen = watch_until(stack, entered, inside)
        stack.callback(entered.register_forward_hook(partial(gather, seen)).remove)
    return joined


def _seen_from(entered: str, layer: Units, device: torch.device) -> Units:
    """A layer's units with the place of their activation relative to a module; without one if it lies outside."""
    place = layer.activation
    if place is None or (entered not in ("", place.module) and not place.module.startswith(f"{entered}.")):
        return replace(layer, activation=None)
    inside = place.module.removeprefix(entered).removeprefix(".")
    # On the device, since nothing can be moved there while a GPU records.
    return replace(layer, activation=replace(place, module=inside, at=place.at.to(device)))
