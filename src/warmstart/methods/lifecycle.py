"""What every training loop does for a method: prepares its network, calls it around updates, checks its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.methods.method import Method, Stage, require_own_memory
from warmstart.methods.report import Report
from warmstart.network import require_module, tensors_of
from warmstart.processes import local, on_inner_module, team_of

_MARK = "_warmstart_prepared"
"""Attribute of a prepared network and its copies: by the method's name, the parameters that the method has added."""


def prepares(method: Method) -> bool:
    """Whether a method overrides `Method.prepare`, so that it changes a network before training."""
    return type(method).prepare is not Method.prepare


def is_prepared(method: Method, model: nn.Module) -> bool:
    """Whether a network, without DistributedDataParallel around it, is prepared; True if the method prepares none."""
    return not prepares(method) or method.name in getattr(model, _MARK, {})


def prepare_(method: Method, model: nn.Module) -> None:
    """Prepare a new network for a method, in place, unless it has been prepared before.

    Layers that the method adds are moved to the device of the network's first parameter.
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
    """Raise InputError unless the network is prepared and the optimizer, if known, holds all its new parameters."""
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


def reported(method: Method, model: nn.Module, stage: Stage) -> Report:
    """Apply a method to new data; its report, or InputError if it gave none."""
    report: Any = method.on_new_data(model, stage)
    if not isinstance(report, Report):
        raise InputError(
            f"method {method}: on_new_data returned {report!r:.60}; it must return a warmstart.Report of what it did"
        )
    unneeded = on_inner_module(team_of(model)[1])  # since loops give all processes the first one's weights afterwards
    return replace(report, warnings=tuple(text for text in report.warnings if text not in unneeded))


class Updates:
    """A method's part in each update of a stage."""

    def __init__(self, method: Method, stage: Stage, done: int = 0) -> None:
        """Begin after ``done`` updates of the stage."""
        self.done = done
        """Updates made before the current one."""
        self._method, self._stage = method, stage
        stage.fresh = _refuse_to_draw
        self._rates: list[tuple[dict[str, Any], Any, float]] = []

    def after_backward(self, model: nn.Module) -> None:
        """Call it after each ``backward()`` of an update, once its gradients are complete."""
        self._put_rates_back()  # of SAM's first pass, or of a skipped update, whose loss scale was too high
        self._keep_rates()
        self._stage.step = self.done
        self._method.after_backward(model, self._stage)

    def after_step(self, model: nn.Module) -> None:
        """Call it after the optimizer's update."""
        self._stage.step = self.done
        try:
            self._method.after_step(model, self._stage)
        finally:
            self._put_rates_back()
        self.done += 1

    def _keep_rates(self) -> None:
        groups = [] if self._stage.optimizer is None else self._stage.optimizer.param_groups
        self._rates = [(group, group["lr"], float(group["lr"])) for group in groups if "lr" in group]

    def _put_rates_back(self) -> None:
        for group, rate, value in self._rates:
            group["lr"] = rate.fill_(value) if isinstance(rate, Tensor) else rate
        self._rates = []


def _refuse_to_draw() -> nn.Module:
    """Take the place of `Stage.fresh` while a stage is trained: a resumed run could not repeat the draw."""
    raise InputError(
        "stage.fresh() draws a network in on_new_data alone, since an interrupted run could not repeat a draw while it "
        "trains; draw it there, and keep what you need of it in stage.state"
    )


def measured(method: Method, model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The network that is measured and served; InputError if it is a new one that shares memory with the model."""
    other = method.measured(model, state)
    if other is not model:
        require_module(other, f"what {method}.measured returns")
        require_own_memory(model, tensors_of(other), f"what {method}.measured returns")
    return other


def checked_state(method: Method, model: nn.Module, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """A copy of a method's state, checked before it is saved; a resumed run would hold shared memory twice.

    Returns:
        The same tensors.

    Raises:
        InputError: If something is no tensor, has no string as its name, or is the network's own memory.
    """
    places = {local(tensor).data_ptr() for tensor in tensors_of(model).values()} - {0}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            what = f"{name!r:.40}: a {type(tensor).__name__}"
            raise InputError(f"{method} keeps {what} in stage.state; keep only tensors, with strings as names")
        if local(tensor).data_ptr() in places:
            raise InputError(f"{method} keeps {name} in stage.state, which is the network's own memory: keep a copy")
    return dict(state)
