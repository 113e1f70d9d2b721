"""An exception at any line of the library while a call runs, and what must be as before when the call raises.

A test tries each line of some files once, in the midst of the times that the line runs, and a few moments of others.
With WARMSTART_EVERY_LINE=1 it tries all lines, each time they run.
"""

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import warmstart

PACKAGE = str(Path(warmstart.__file__).parent) + os.sep
EVERY_LINE = os.environ.get("WARMSTART_EVERY_LINE") == "1"
METHODS = ("methods/",)
SAMPLE = 3
"""Moments that are tried besides, at any line."""


class AnyError(Exception):
    """Raised at a line."""


KINDS = (AnyError, KeyboardInterrupt)
Moment = tuple[str, int]
"""A line, as file:number, and which time that it runs."""


@dataclass
class _Lines:
    """Notes the lines of the library that run, and raises at one of them."""

    within: str = PACKAGE
    at: Moment | None = None
    kind: type[BaseException] = AnyError
    ran: list[Moment] = field(default_factory=list)
    times: Counter[str] = field(default_factory=Counter)

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(self.within):
            return None
        if event == "line":
            line = f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno}"
            self.times[line] += 1
            self.ran.append((line, self.times[line]))
            if self.ran[-1] == self.at:
                raise self.kind
        return self

    def run(self, call):
        """What the call returned; None if it raised what this raises."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return call()
        finally:
            sys.settrace(before)


@dataclass
class Trial:
    """A call, and all that it may change."""

    call: Callable[[], Any]
    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    others: Callable[[], dict[str, Any]] = dict
    """What else must be as before: name -> value."""

    def state(self):
        """All that must be as before, by name; tensors with their values, and which objects they are."""
        found = {**_switches(), **_of_network(self.model), **self.others()}
        if self.optimizer is not None:
            found.update(_of_optimizer(self.optimizer))
        return found


def _switches():
    backends: Any = torch.backends
    return {
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "TF32 in products": torch.get_float32_matmul_precision(),
        "TF32 in convolutions": backends.cudnn.allow_tf32,
        "fused attention": backends.mha.get_fastpath_enabled(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "random state": torch.get_rng_state(),
    }


def _of_network(model):
    found = {}
    for name, layer in model.named_modules():
        found[f"{name} trains"] = layer.training
        found[f"{name} momentum"] = getattr(layer, "momentum", None)
        hooks = (layer._forward_hooks, layer._forward_pre_hooks)
        found[f"{name} hooks"] = tuple(map(len, hooks))
        found[f"{name} attributes"] = sorted(vars(layer))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[name] = tensor.detach().clone()
        found[f"{name} is"] = id(tensor)
    for name, parameter in model.named_parameters():
        found[f"{name} is trained"] = parameter.requires_grad
        found[f"{name} gradient"] = None if parameter.grad is None else parameter.grad.clone()
        found[f"{name} gradient is"] = None if parameter.grad is None else id(parameter.grad)
    return found


def _of_optimizer(optimizer):
    names = {p: f"{i}.{j}" for i, group in enumerate(optimizer.param_groups) for j, p in enumerate(group["params"])}
    found = {}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            found[f"moment {names[parameter]} {key}"] = value.clone() if isinstance(value, Tensor) else value
            found[f"moment {names[parameter]} {key} is"] = id(value)
    for i, group in enumerate(optimizer.param_groups):
        found[f"group {i}"] = {key: value for key, value in group.items() if key != "params"}
    return found


def differing(before, after):
    """Names of what came, went or holds another bit."""
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or not _same(before[name], after[name])
    )


def _same(one, other):
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def _values(state):
    """Without which object a tensor is, which differs from trial to trial."""
    return {name: value for name, value in state.items() if not name.endswith(" is")}


def _drawn(ran: list[Moment], files: tuple[str, ...]) -> list[tuple[Moment, type[BaseException]]]:
    """Which moments are tried, and what is raised there."""
    every = [(moment, kind) for kind in KINDS for moment in ran]
    if EVERY_LINE:
        return every
    middle = [(line, times // 2 + 1) for line, times in dict(ran).items() if line.startswith(files)]
    return [*zip(middle, cycle(KINDS)), *random.Random(0).sample(every, min(SAMPLE, len(every)))]


def half_done(begin: Callable[[], Trial], *files: str) -> tuple[list[str], int]:
    """Raise at lines of the library while a call runs, one at a time.

    They are those of ``files``, which may be folders, by default of the methods, and a few others.
    ``begin`` makes the same trial each time. The call may fail by an InputError, and must leave all as it was then too.

    Returns:
        What was neither as before nor, where the call returned, as after an undisturbed call; and how many were tried.
    """
    whole = begin()
    before = whole.state()
    try:
        whole.call()
        fails = False
    except warmstart.InputError:
        fails = True
    after = before if fails else _values(whole.state())
    if fails and differing(before, whole.state()):
        return [f"undisturbed: {', '.join(differing(before, whole.state())[:4])}"], 1
    lines = _Lines()  # of a second call, as the first one imports modules
    with suppress(warmstart.InputError):
        lines.run(begin().call)
    drawn = _drawn(lines.ran, files or METHODS)
    wrong = []
    trial = begin()
    before = trial.state()
    for moment, kind in drawn:
        here = _Lines(PACKAGE + moment[0].partition(":")[0], moment, kind)
        try:
            here.run(trial.call)
        except (AnyError, KeyboardInterrupt, warmstart.InputError):
            found = differing(before, trial.state())
            again = bool(found)
        else:
            found = [] if fails else differing(after, _values(trial.state()))
            found += ["it returned"] if fails else []
            again = True
        if found:
            wrong.append(f"{moment}, {kind.__name__}: {', '.join(found[:4])}")
        if again:  # bit for bit as it was, a trial can go on
            _reset_switches()
            trial = begin()
            before = trial.state()
    return wrong, len(drawn)


def _reset_switches():
    torch.set_grad_enabled(True)
    torch.set_autocast_enabled("cpu", False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.mha.set_fastpath_enabled(True)
