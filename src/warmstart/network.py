"""Checks of the arguments model, optimizer and generator; eval mode and buffers that are restored afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.undo import afterwards


def require_module(model: Any, what: str = "model") -> None:
    """Raise InputError unless the argument called ``what`` is an `nn.Module` all of whose tensors have a shape."""
    require_module_type(model, what)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(f"{what}: {name} has no shape yet (a lazy layer); run the network once on a batch first")


def require_module_type(model: Any, what: str = "model") -> None:
    """Raise InputError unless the argument called ``what`` is an `nn.Module`."""
    if not isinstance(model, nn.Module):
        hint = "call it, and pass the network that it makes" if callable(model) else "pass a torch.nn.Module"
        raise InputError(f"{what} is a {type(model).__name__}, not a network: {hint}")


def require_optimizer(optimizer: Any) -> None:
    """Raise InputError unless it is a `torch.optim.Optimizer`."""
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            f"optimizer is a {type(optimizer).__name__}: pass the torch.optim.Optimizer that trains the model"
        )


def require_generator(generator: Any) -> None:
    """Raise InputError unless it is a `torch.Generator`, or None for PyTorch's own."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        kind = type(generator).__name__
        raise InputError(f"generator is a {kind}: pass torch.Generator().manual_seed(seed), or leave it out")


def require_values(tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError if one of the tensors, given by name, is on the meta device."""
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device and has no values: load the weights first")


def require_writable(tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError if one of the tensors, given by name, cannot be changed in place."""
    require_values(tensors)
    for name, tensor in tensors.items():
        if any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
            raise InputError(
                f"{name} cannot be changed in place, since several of its elements are one in memory (expand): put its "
                "clone() there first"
            )
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise InputError(
                f"{name} cannot be changed in place, since it was made in inference mode: make or load it outside of "
                "torch.inference_mode()"
            )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode, then each layer's own training flag again: a user may have frozen some of them."""
    training = {layer: layer.training for layer in model.modules()}

    def put_back() -> None:
        for layer, flag in training.items():
            layer.training = flag

    with afterwards(put_back):
        model.eval()
        yield


def saved_buffers(model: nn.Module) -> Callable[[], None]:
    """Copy every buffer, since a forward pass may change them in eval mode too; returns what restores them all."""
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


_USUAL = frozenset(vars(nn.Module()))
_LARGEST_CACHE = 1000
"""Entries of a dictionary or list beyond which it is data of the network's, which nobody searches for tensors."""


def detached_caches(model: nn.Module) -> Callable[[], None]:
    """Detach the tensors in plain attributes that would stop a backward pass; returns what puts them back."""
    # It goes through no graph that another one has used up, and through no tensor of inference mode.
    found = [
        (layer, name, value) for layer in model.modules() for name, value in _plain(layer) if _is_made(value, _stops)
    ]
    for layer, name, value in found:
        vars(layer)[name] = _detached(value)

    def put_back() -> None:
        for layer, name, value in found:
            vars(layer)[name] = value

    return put_back


def saved_caches(model: nn.Module) -> Callable[[], None]:
    """Note the plain attributes of every layer; returns what drops tensors of a graph that a pass has put there."""
    # In eval mode timm's LeViT keeps attention biases in a dictionary: a second backward pass cannot go through them,
    # and copy.deepcopy refuses them.
    saved = [(layer, {name: (value, _copied(value)) for name, value in _plain(layer)}) for layer in model.modules()]

    def drop() -> None:
        for layer, attributes in saved:
            for name, value in _plain(layer):
                if not _is_made(value, _has_graph):
                    continue
                if name not in attributes:
                    delattr(layer, name)
                    continue
                vars(layer)[name], entries = attributes[name]
                if isinstance(entries, dict):
                    vars(layer)[name].clear()
                    vars(layer)[name].update(entries)
                elif isinstance(entries, list):
                    vars(layer)[name][:] = entries

    return drop


def _plain(layer: nn.Module) -> list[tuple[str, Any]]:
    """The attributes of a layer that are neither parameters, buffers and layers nor PyTorch's own."""
    return [(name, value) for name, value in vars(layer).items() if name not in _USUAL]


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list)) else value


def _has_graph(tensor: Tensor) -> bool:
    return tensor.grad_fn is not None


def _stops(tensor: Tensor) -> bool:
    return _has_graph(tensor) or tensor.is_inference()


def _is_made(value: Any, holds: Callable[[Tensor], bool]) -> bool:
    """Whether it is a tensor for which ``holds`` is true, or a small dictionary, list or tuple with such a one."""
    if isinstance(value, (dict, list, tuple)):
        entries = value.values() if isinstance(value, dict) else value
        return len(value) <= _LARGEST_CACHE and any(isinstance(e, Tensor) and holds(e) for e in entries)
    return isinstance(value, Tensor) and holds(value)


def _detached(value: Any) -> Any:
    if isinstance(value, dict):
        twin = value.copy()
        twin.update((key, _detached(entry)) for key, entry in value.items())
        return twin
    if type(value) in (list, tuple):
        return type(value)(map(_detached, value))
    return value.detach().clone() if isinstance(value, Tensor) and _stops(value) else value


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, non-persistent buffers included; what is shared appears once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
