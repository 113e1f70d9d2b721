"""The network that a caller gives: refused where it is none, and put back as it was after a while in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from warmstart.errors import InputError


def require_module(model: Any, what: str = "model") -> None:
    """Refuse what is no network.

    Args:
        model: What the caller gave.
        what: The argument's name.

    Raises:
        InputError: If it is no `torch.nn.Module`, such as a function or class that makes one.
    """
    if not isinstance(model, nn.Module):
        hint = "call it, and pass the network that it makes" if callable(model) else "pass a torch.nn.Module"
        raise InputError(f"{what} is a {type(model).__name__}, not a network: {hint}")


def require_optimizer(optimizer: Any) -> None:
    """Refuse what is no optimizer.

    Args:
        optimizer: What the caller gave.

    Raises:
        InputError: If it is no `torch.optim.Optimizer`.
    """
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer is a {type(optimizer).__name__}: pass the torch.optim.Optimizer that goes on")


def require_generator(generator: Any) -> None:
    """Refuse what is no source of randomness.

    Args:
        generator: What the caller gave; None is PyTorch's own.

    Raises:
        InputError: If it is something else, such as a seed.
    """
    if not (generator is None or isinstance(generator, torch.Generator)):
        kind = type(generator).__name__
        raise InputError(f"generator is a {kind}: pass torch.Generator().manual_seed(seed), or leave it out")


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode, and every layer's own training flag put back: a user may have frozen some of them.

    Args:
        model: The network.

    Yields:
        Nothing.
    """
    training = {layer: layer.training for layer in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for layer, flag in training.items():
            layer.training = flag


def saved_buffers(model: nn.Module) -> Callable[[], None]:
    """Copy every buffer, since a forward pass may change them in eval mode too.

    Args:
        model: The network.

    Returns:
        What puts all of them back, the tensors and their values.
    """
    saved = [
        (layer, name, buffer, None if buffer is None else buffer.detach().clone())
        for layer in model.modules()
        for name, buffer in layer._buffers.items()
    ]

    def put_back() -> None:
        for layer, name, buffer, values in saved:
            layer._buffers[name] = buffer
            if buffer is not None and values is not None and not torch.equal(buffer, values):
                buffer.detach().copy_(values)

    return put_back
