"""All or nothing: a call either returns, or has put back, bit for bit, what it had changed.

Whatever changes a network, an optimizer or a global switch inside such a call says before how to put it back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_Steps = dict[Hashable, Callable[[], object]]
"""What puts things back, in the order of the changes; a tensor's copy stands under the tensor, anything else alone.

Each may run more than once, and before its change was made.
"""


class _Open(threading.local):
    """The innermost call under way in this thread."""

    steps: _Steps | None = None


_open = _Open()


def all_or_nothing(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function put back what it has changed if anything is raised before it returns, an interruption included.

    What it calls says how, by `on_failure` and `keep`. The gradient mode and PyTorch's random state on the CPU are put
    back as well. Such functions may call each other: the outer one then undoes the inner ones' work too.

    Returns:
        The function, otherwise as it was.
    """

    @wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        outer = _open.steps
        steps: _Steps = {
            "call": partial(setattr, _open, "steps", outer),
            "gradients": partial(torch.set_grad_enabled, torch.is_grad_enabled()),
            "noise": partial(torch.set_rng_state, torch.get_rng_state()),
        }

        def call() -> R:
            _open.steps = steps
            result = function(*args, **kwargs)
            if outer is not None:
                outer.update((key, step) for key, step in steps.items() if key not in outer)
            _open.steps = outer
            return result

        # Twice, for an interruption in the midst of putting back.
        return _or_put_back(steps, lambda: _or_put_back(steps, call))

    return whole


def on_failure(put_back: Callable[[], object]) -> None:
    """Say how to put something back, before it is changed; it may be called more than once.

    Outside of an `all_or_nothing` call nothing happens.
    """
    if _open.steps is not None:
        _open.steps[put_back] = put_back


def keep(tensors: Iterable[Tensor]) -> None:
    """Copy tensors that are about to be changed in place, as `on_failure` does; what is kept already is not copied."""
    steps = _open.steps
    if steps is not None:
        for tensor in tensors:
            if tensor not in steps:
                steps[tensor] = partial(_write, tensor, tensor.detach().clone())


def keep_random_state(generator: torch.Generator | None, devices: Iterable[torch.device] = ()) -> None:
    """Keep the state of a generator about to be drawn from; of PyTorch's own ones on these devices if it is None."""
    if generator is not None:
        on_failure(partial(generator.set_state, generator.get_state()))
        return
    for device in devices:
        if device.type == "cuda":  # the CPU's is always kept
            on_failure(partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device))


@contextmanager
def afterwards(put_back: Callable[[], object]) -> Iterator[None]:
    """Put something back when the block ends, and for certain if the call around it fails.

    Yields:
        Nothing; the block makes the change.
    """
    on_failure(put_back)
    try:
        yield
    finally:
        put_back()


def _write(tensor: Tensor, values: Tensor) -> None:
    tensor.detach().copy_(values)


def _or_put_back(steps: _Steps, work: Callable[[], R]) -> R:
    try:
        return work()
    except BaseException:
        _put_back(steps)
        raise


def _put_back(steps: _Steps) -> None:
    """Take all steps, the last one first, also where one of them raises; then forget them, and their copies."""
    with ExitStack() as stack:
        stack.enter_context(_signals_held())
        for step in steps.values():
            stack.callback(step)
    steps.clear()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let signals that would raise an exception wait until the block has ended."""
    if threading.current_thread() is not threading.main_thread():  # no signal is handled in another one
        yield
        return
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    waiting: list[int] = []
    holding = True

    def hold(number: int, frame: FrameType | None) -> None:
        if holding:
            waiting.append(number)
        else:
            handlers[number](number, frame)

    try:
        for number in handlers:
            signal.signal(number, hold)
        yield
    finally:
        holding = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)
