"""How each kind of layer splits into neurons: the only file that knows layer types.

A neuron is the group of weights that gets one scale. `neurons` walks a network and names, for every
parameter that belongs to a known layer, the dimensions that lie *within* one neuron; all else follows
from `Neurons.dims` by plain broadcasting, so weights of any stride order and dtype are handled alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from warmstart.errors import InputError, nearest

Granularity = Literal["kernel", "neuron"]
"""What one scale covers in a convolution: an (out, in) kernel, as in the paper, or a whole output filter."""

Filter = Callable[[nn.Module, str], bool]
"""``filter_fn(module, name)``: whether the layer of that name takes part."""

Dims = Mapping[str, tuple[int, ...]]
"""Parameter name -> the dimensions of it that lie within one neuron."""


@dataclass(frozen=True)
class Neurons:
    """One parameter and how it splits into neurons."""

    name: str
    """As in ``model.named_parameters()``."""
    kind: str
    """The layer's type, such as ``Conv2d``."""
    parameter: nn.Parameter
    dims: tuple[int, ...]
    """The dimensions that lie within one neuron; the other ones count the neurons."""

    @property
    def size(self) -> int:
        """Weights in one neuron."""
        return math.prod(self.parameter.shape[d] for d in self.dims)

    @property
    def count(self) -> int:
        """Neurons in the parameter."""
        return self.parameter.numel() // max(1, self.size)


@dataclass(frozen=True)
class LeftAlone:
    """A parameter that a method does not change, and why."""

    name: str
    reason: str


def _linear(layer: nn.Module, granularity: Granularity) -> Dims:
    """Rows: weight (out, in)."""
    return {"weight": (1,), "bias": (0,)}


def _convolution(layer: nn.Module, granularity: Granularity) -> Dims:
    """Kernels: weight (out, in / groups, *spatial)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    within = range(2, weight.dim()) if granularity == "kernel" else range(1, weight.dim())
    return {"weight": tuple(within), "bias": (0,)}


_SPLITS: dict[type[nn.Module], Callable[[nn.Module, Granularity], Dims]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
}

_NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer normalises its input, so that the scale of the weights before it cancels.

    Args:
        layer: Any module.

    Returns:
        True for batch, instance, layer, group and RMS norm, those of other libraries included by name.
    """
    return isinstance(layer, _NORMS) or type(layer).__name__.rstrip("123d").endswith("Norm")


def _split_of(layer: nn.Module) -> Callable[[nn.Module, Granularity], Dims] | None:
    return next((_SPLITS[kind] for kind in type(layer).__mro__ if kind in _SPLITS), None)


def neurons(
    model: nn.Module, granularity: Granularity = "kernel", filter_fn: Filter | None = None
) -> tuple[list[Neurons], list[LeftAlone]]:
    """Split a network's parameters into neurons.

    Args:
        model: Any network. A parameter that is shared between layers appears once, with the first of them.
        granularity: What one scale covers in a convolution: ``"kernel"`` (the paper's) or ``"neuron"``, a filter.
        filter_fn: ``filter_fn(module, name)`` says whether a layer takes part; all do if not given.

    Returns:
        The parameters that split, in the order of ``model.named_parameters()``, and those left alone, each
        with its reason.

    Raises:
        InputError: If the granularity is unknown, a parameter has no shape yet (a lazy layer), or no
            parameter is left that could be changed.
    """
    if granularity not in ("kernel", "neuron"):
        raise InputError(f"granularity {granularity!r} is unknown{nearest(str(granularity), ('kernel', 'neuron'))}")
    found: list[Neurons] = []
    left: list[LeftAlone] = []
    for name, layer, key, parameter in _parameters(model):
        split = _split_of(layer)
        dims = split(layer, granularity).get(key) if split else None
        if isinstance(parameter, nn.UninitializedParameter):
            raise InputError(f"{name} has no shape yet (a lazy layer): run the model once on a batch first")
        if is_norm(layer):
            left.append(LeftAlone(name, "norm layer"))
        elif dims is None:
            left.append(LeftAlone(name, f"no rule for {type(layer).__name__}.{key}"))
        elif filter_fn is not None and not filter_fn(layer, name.rpartition(".")[0]):
            left.append(LeftAlone(name, "excluded by filter_fn"))
        elif not parameter.requires_grad:
            left.append(LeftAlone(name, "frozen (requires_grad is False)"))
        else:
            found.append(Neurons(name, type(layer).__name__, parameter, dims))
    if not found:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in left[:3]) or "it has no parameters"
        raise InputError(f"the model has no weights to scale ({reasons}); unfreeze a Linear or Conv layer")
    return found, left


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """(full name, layer, name in the layer, parameter), each parameter once."""
    seen: set[int] = set()
    for prefix, layer in model.named_modules():
        for key, parameter in layer.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{key}" if prefix else key), layer, key, parameter


def has_norm(model: nn.Module) -> bool:
    """Whether a network has any normalisation layer.

    Args:
        model: Any network.

    Returns:
        True if one of its modules normalises. Without any, scaling the weights of every layer by ``s``
        shrinks the output like ``s ** depth``.
    """
    return any(is_norm(layer) for layer in model.modules())


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch-norm layers of a network, of any kind (1d to 3d, synchronised, or derived from these).

    Args:
        model: Any network.

    Returns:
        The layers; with any, a batch of one is a problem, and running statistics lag behind the weights.
    """
    return [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def output_layer(model: nn.Module, output: Tensor) -> tuple[str, nn.Module]:
    """Find the layer that feeds the output, by walking the autograd graph back from it.

    The order in which modules were registered says nothing about which one comes last.

    Args:
        model: The network that computed ``output``.
        output: Its output or loss, any shape, still attached to its graph.

    Returns:
        The name of the nearest layer with weights, and the layer.

    Raises:
        InputError: If no layer with trainable weights lies behind the output.
    """
    owners: dict[int, tuple[str, nn.Module]] = {}
    for name, layer, _, parameter in _parameters(model):
        if _split_of(layer) is not None and not is_norm(layer):
            owners[id(parameter)] = (name.rpartition(".")[0], layer)
    frontier: Iterable[torch.autograd.graph.Node] = [output.grad_fn] if output.grad_fn is not None else []
    seen: set[torch.autograd.graph.Node] = set()
    while frontier:
        for node in frontier:
            owner = owners.get(id(getattr(node, "variable", None)))
            if owner is not None:
                return owner
        seen.update(frontier)
        frontier = [
            following
            for node in frontier
            for following, _ in node.next_functions
            if following is not None and following not in seen
        ]
    raise InputError("no trainable Linear or Conv layer lies behind the model's output; name the head yourself")
