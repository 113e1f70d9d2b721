"""What every training loop does for a method: prepares its network, calls it around updates, saves what it keeps.

One place for all loops, so that a method meets the same in each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.methods.cold import tensors_of
from warmstart.methods.method import Method, Stage, require_own_memory
from warmstart.network import require_module
from warmstart.processes import local

_MARK = "_warmstart_prepared"
"""Attribute of a prepared network; copies of it, pickled ones included, are prepared as well. It holds, by the method's
name, which parameters the method has put in."""


def prepares(method: Method) -> bool:
    """Whether a method changes a network before training.

    Args:
        method: Any method.

    Returns:
        False if `Method.prepare` is the base's, which does nothing.
    """
    return type(method).prepare is not Method.prepare


def is_prepared(method: Method, model: nn.Module) -> bool:
    """Whether a network is as a method wants it.

    Args:
        method: Any method.
        model: The network, without DistributedDataParallel around it.

    Returns:
        True as well if the method wants nothing.
    """
    return not prepares(method) or method.name in getattr(model, _MARK, {})


def prepare_(method: Method, model: nn.Module) -> None:
    """Let a method change a new network, in place; a network that has been prepared for it stays as it is.

    Args:
        method: Any method.
        model: The network. What the method puts into it goes to the device of its first parameter.
    """
    require_module(model)
    if is_prepared(method, model):
        return
    parameters, layers = set(model.parameters()), set(model.modules())
    device = next(iter(model.parameters())).device if parameters else torch.device("cpu")
    method.prepare(model)
    for layer in model.modules():
        if layer not in layers:
            layer.to(device)
    new = [name for name, parameter in model.named_parameters() if parameter not in parameters]
    setattr(model, _MARK, {**getattr(model, _MARK, {}), method.name: new})


def require_prepared(method: Method, model: nn.Module, optimizer: Optimizer | None) -> None:
    """Refuse a network that was not prepared, and an optimizer that was made before it was.

    Args:
        method: Any method.
        model: The network, without DistributedDataParallel around it.
        optimizer: The one that trains it, if anybody knows.

    Raises:
        InputError: If the method has not prepared it, or has put a parameter into it that the optimizer does not hold.
    """
    if not is_prepared(method, model):
        raise InputError(f"{method} changes the network before training: call prepare(model) right after making it")
    if optimizer is None:
        return
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    new = getattr(model, _MARK, {}).get(method.name, ())
    for name, parameter in model.named_parameters():
        if name in new and parameter.requires_grad and parameter not in held:
            raise InputError(
                f"the optimizer does not hold {name}, which {method} put into the network: make it after prepare(model)"
            )


class Updates:
    """A method's part in each update of a stage.

    Attributes:
        done: Updates made before the one under way.
    """

    def __init__(self, method: Method, stage: Stage, done: int = 0) -> None:
        """Begin.

        Args:
            method: Any method.
            stage: What it is told.
            done: Updates that the stage has behind it.
        """
        self.done = done
        self._method, self._stage = method, stage
        self._changed: int | None = None  # the update whose rates the method may have changed
        self._rates: list[tuple[dict[str, Any], Any, float]] = []

    def after_backward(self, model: nn.Module) -> None:
        """Call it after each ``backward()`` of an update, once its gradients are whole.

        Args:
            model: The network.
        """
        if self._changed != self.done:
            self._put_rates_back()  # of an update that was skipped: a loss scale was too high
            self._keep_rates()
        self._stage.step = self.done
        self._method.after_backward(model, self._stage)

    def after_step(self, model: nn.Module) -> None:
        """Call it after the optimizer's update.

        Args:
            model: The network.
        """
        self._stage.step = self.done
        try:
            self._method.after_step(model, self._stage)
        finally:
            self._put_rates_back()
        self.done += 1

    def _keep_rates(self) -> None:
        self._changed = self.done
        groups = [] if self._stage.optimizer is None else self._stage.optimizer.param_groups
        self._rates = [(group, group["lr"], float(group["lr"])) for group in groups if "lr" in group]

    def _put_rates_back(self) -> None:
        for group, rate, value in self._rates:
            group["lr"] = rate.fill_(value) if isinstance(rate, Tensor) else rate
        self._rates = []


def measured(method: Method, model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Ask a method for the network that is measured and served.

    Args:
        method: Any method.
        model: The network that is trained.
        state: What the method keeps.

    Returns:
        That network.

    Raises:
        InputError: If it is another one that shares memory with the one that is trained.
    """
    other = method.measured(model, state)
    if other is not model:
        require_module(other, f"what {method}.measured returns")
        require_own_memory(model, tensors_of(other), f"what {method}.measured returns")
    return other


def checked_state(method: Method, model: nn.Module, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Look at what a method keeps before it is saved.

    Args:
        method: Any method.
        model: The network that is trained.
        state: What the method keeps.

    Returns:
        The same tensors.

    Raises:
        InputError: If something is no tensor or has no name, or is the network's own memory, which a resumed run would
            hold twice.
    """
    places = {local(tensor).data_ptr() for tensor in tensors_of(model).values()} - {0}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            what = f"{name!r:.40}: a {type(tensor).__name__}"
            raise InputError(f"{method} keeps {what} in stage.state; keep tensors, by names that are strings")
        if local(tensor).data_ptr() in places:
            raise InputError(f"{method} keeps {name} in stage.state, which is the network's own memory: keep a copy")
    return dict(state)
