"""An exception at any line of the library while a call runs, and what must be as before when the call raises.

A test tries a few lines, drawn anew from a fixed seed; with WARMSTART_EVERY_LINE=1 all of them, for both kinds.
"""

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import warmstart

PACKAGE = str(Path(warmstart.__file__).parent) + os.sep
EVERY_LINE = os.environ.get("WARMSTART_EVERY_LINE") == "1"
SAMPLE = 6
"""Lines that a test tries where it does not try all."""


class AnyError(Exception):
    """Raised at a line."""


KINDS = (AnyError, KeyboardInterrupt)


@dataclass
class _Lines:
    """Counts the lines of the library that run, and raises at one of them."""

    at: int = -1
    kind: type[BaseException] = AnyError
    count: int = 0
    where: str = ""

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.at:
                self.where = f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno}"
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


def half_done(begin: Callable[[], Trial], seed: int = 0, sample: int | None = None) -> tuple[list[str], int]:
    """Raise at lines of the library while a call runs, one at a time.

    ``begin`` makes the same trial each time. The call may fail by an InputError, and must leave all as it was then too.

    Returns:
        What was neither as before nor, where the call returned, as after an undisturbed call; and how many were tried.
    """
    whole, lines = begin(), _Lines()
    before = whole.state()
    try:
        lines.run(whole.call)
        fails = False
    except warmstart.InputError:
        fails = True
    after = before if fails else _values(whole.state())
    if fails and differing(before, whole.state()):
        return [f"undisturbed: {', '.join(differing(before, whole.state())[:4])}"], 1
    drawn = [(line, kind) for kind in KINDS for line in range(1, lines.count + 1)]
    if not EVERY_LINE:
        drawn = random.Random(seed).sample(drawn, min(sample or SAMPLE, len(drawn)))
    wrong = []
    trial = begin()
    before = trial.state()
    for line, kind in drawn:
        here = _Lines(line, kind)
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
            wrong.append(f"line {line}, {here.where}, {kind.__name__}: {', '.join(found[:4])}")
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
