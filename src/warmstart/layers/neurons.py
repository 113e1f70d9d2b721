"""How each kind of layer splits into neurons.

A neuron is the group of weights that gets one scale. `neurons` walks a network and names, for every
parameter that belongs to a known layer, the dimensions that lie *within* one neuron; all else follows
from `Neurons.dims` by plain broadcasting, so weights of any stride order and dtype are handled alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from warmstart.errors import InputError, one_of
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.norms import is_norm
from warmstart.network import require_module, require_values

Granularity = Literal["kernel", "kernel-or-row", "neuron"]
"""What one scale covers in a convolution: an (out, in) kernel, as in the paper; a kernel, but where it is 1x1, and so
a single weight, a row as in a Linear; or an output filter whatever the kernel."""

GRANULARITY: Granularity = "kernel-or-row"
"""What one scale covers unless the caller says otherwise."""

Filter = Callable[[nn.Module, str], bool]
"""``filter_fn(module, name)``: whether the layer of that name takes part."""


@dataclass(frozen=True)
class Neurons:
    """One parameter and how it splits into neurons."""

    name: str
    """As in ``model.named_parameters()``."""
    kind: str
    """The layer's type, such as ``Conv2d``."""
    parameter: nn.Parameter
    dims: tuple[int, ...]
    """The dimensions of `view` that lie within one neuron; the other ones count the neurons."""
    groups: int = 1
    """Blocks that the first dimension stands for; more than 1 in grouped transposed convolutions only."""
    spare_unseen: bool = False
    """Whether neurons without any gradient are left as they are: rows of an embedding that did not occur."""

    def view(self, tensor: Tensor) -> Tensor:
        """A view of the parameter or its gradient, with its neurons along whole dimensions."""
        return tensor.unflatten(0, (self.groups, -1)) if self.groups > 1 else tensor

    @property
    def size(self) -> int:
        """Weights in one neuron."""
        shape = self.view(self.parameter).shape
        return math.prod(shape[d] for d in self.dims)

    @property
    def count(self) -> int:
        """Neurons in the parameter."""
        return self.parameter.numel() // max(1, self.size)


@dataclass(frozen=True)
class Split:
    """How one parameter of a layer splits: `Neurons` without its parameter."""

    dims: tuple[int, ...]
    groups: int = 1
    spare_unseen: bool = False


Rule = Callable[[Any, Granularity], Mapping[str, "Split | tuple[int, ...]"]]
"""``rule(layer, granularity)`` -> parameter name in the layer -> the dimensions that lie within one neuron."""

_HOOKS: tuple[tuple[type, tuple[str, ...], str], ...] = (
    (WeightNorm, ("_g", "_v"), "remove_weight_norm"),
    (SpectralNorm, ("_orig",), "remove_spectral_norm"),
    (BasePruningMethod, ("_orig",), "prune.remove"),
)
"""Hooks of `torch.nn.utils` that compute a weight, the endings of the parameters it is made of, and what undoes it."""

NO_RULE, PARAMETRISED, HOOKED = "no rule for", "parametrised", "computed anew by a hook"
"""How the reason begins of a parameter whose layer nobody has told how to split, or from which a weight is made."""
UNREACHED = "no gradient reached it"

_WHOLE = Split((0,))  # a bias vector is one group


def _rows(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Linear: weight (out, in)."""
    return {"weight": Split((1,)), "bias": _WHOLE}


def _columns(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Linear layers that hold their weight as (in, out)."""
    return {"weight": Split((0,)), "bias": _WHOLE}


def _bilinear(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Weight (out, in1, in2)."""
    return {"weight": Split((1, 2)), "bias": _WHOLE}


def _embedding(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Weight (entries, features): an entry is a neuron."""
    return {"weight": Split((1,), spare_unseen=True)}


def _convolution(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Weight (out, in / groups, *kernel)."""
    kernel = tuple(range(2, _weight(layer).dim()))
    return {"weight": Split(kernel if _by_kernel(layer, granularity) else (1, *kernel)), "bias": _WHOLE}


def _transposed_convolution(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Weight (in, out / groups, *kernel): an output filter lies across the inputs of its group."""
    kernel = tuple(range(2, _weight(layer).dim()))
    if _by_kernel(layer, granularity):
        return {"weight": Split(kernel), "bias": _WHOLE}
    groups = layer.groups
    assert isinstance(groups, int)
    if groups == 1:
        return {"weight": Split((0, *kernel)), "bias": _WHOLE}
    return {"weight": Split((1, *(d + 1 for d in kernel)), groups), "bias": _WHOLE}


def _by_kernel(layer: nn.Module, granularity: Granularity) -> bool:
    """Whether each kernel of a convolution is a neuron."""
    of_one_weight = math.prod(_weight(layer).shape[2:]) == 1
    return granularity == "kernel" or (granularity == "kernel-or-row" and not of_one_weight)


def _attention(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Packed projections (3 out, in), by rows of q, k and v; or one (out, in) each."""
    weights = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    learned = dict.fromkeys(("bias_k", "bias_v"), Split((0, 1, 2)))
    return {**dict.fromkeys(weights, Split((1,))), "in_proj_bias": _WHOLE, **learned}


def _recurrent(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Weights (gates x hidden, in), by rows of each gate; a bias vector is one group."""
    return {
        name: _WHOLE if name.startswith("bias") else Split((1,)) for name, _ in layer.named_parameters(recurse=False)
    }


def _experts(layer: nn.Module, granularity: Granularity) -> Mapping[str, Split]:
    """Fused experts, weights (experts, out, in), or (experts, in, out) if transposed: an output of an expert."""
    transposed = getattr(layer, "is_transposed", True)  # Llama 4's have no such attribute, and are
    inside = {3: (1 if transposed else 2,), 2: (1,)}  # a bias (experts, out) is one group for each expert
    return {
        name: Split(inside[weight.dim()], spare_unseen=True)
        for name, weight in layer.named_parameters(recurse=False)
        if weight.dim() in inside and name.removesuffix("_bias").endswith("_proj")
    }


_SPLITS: dict[type[nn.Module], Rule] = {
    nn.Linear: _rows,
    nn.Bilinear: _bilinear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed_convolution,
    nn.ConvTranspose2d: _transposed_convolution,
    nn.ConvTranspose3d: _transposed_convolution,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _recurrent,  # RNN, LSTM, GRU
    nn.modules.rnn.RNNCellBase: _recurrent,
}

_SPLITS_BY_NAME: dict[str, Rule] = {
    "transformers.pytorch_utils.Conv1D": _columns,
    "transformers.models.llama4.modeling_llama4.Llama4TextExperts": _experts,
}
"""Layers of other libraries, by name so that these need not be imported."""


def register_layer(kind: type[nn.Module], rule: Rule | Mapping[str, tuple[int, ...]]) -> None:
    """Say how a layer of your own splits into neurons.

    Args:
        kind: The layer's class; its subclasses are split alike.
        rule: The parameter's name in the layer -> the dimensions that lie within one neuron, such as
            ``{"weight": (1,), "bias": (0,)}`` for a linear layer; or ``rule(layer, granularity)``, which returns that.
            Other parameters are left alone.

    Raises:
        InputError: If ``kind`` is no module class, or ``rule`` neither a mapping nor a function.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"register_layer needs a subclass of nn.Module, not {kind!r}")
    if isinstance(rule, Mapping):
        same = dict(rule)
        _SPLITS[kind] = lambda layer, granularity: same
    elif callable(rule):
        _SPLITS[kind] = rule
    else:
        raise InputError(f"rule is {rule!r:.60}: give names and dimensions, or a function of a layer and a granularity")


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule of a layer's class; None where there is none."""
    for kind in type(layer).__mro__:
        rule = _SPLITS.get(kind) or _SPLITS_BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")
        if rule is not None:
            return rule
    return _experts if isinstance(getattr(layer, "is_transposed", None), bool) else None  # transformers' experts say so


def _hook_on(layer: nn.Module, key: str) -> str | None:
    """What undoes the hook of `torch.nn.utils` that computes a weight from this parameter; None without such a hook."""
    for hook in layer._forward_pre_hooks.values():
        name = getattr(hook, "name", None) or getattr(hook, "_tensor_name", None)
        for kind, endings, undo in _HOOKS:
            if isinstance(hook, kind) and key in {f"{name}{ending}" for ending in endings}:
                return undo
    return None


def _makes_its_weights(layer: nn.Module) -> bool:
    """Whether a layer's weights are parametrised, or computed by a hook of `torch.nn.utils`."""
    hooked = any(isinstance(hook, kind) for hook in layer._forward_pre_hooks.values() for kind, *_ in _HOOKS)
    return hooked or nn.utils.parametrize.is_parametrized(layer)


def require_granularity(granularity: str) -> None:
    """Raise InputError unless this is one of the words for what a scale covers."""
    one_of("granularity", str(granularity), get_args(Granularity))


def neurons(
    model: nn.Module, granularity: Granularity = GRANULARITY, filter_fn: Filter | None = None
) -> tuple[list[Neurons], list[LeftAlone]]:
    """Split a network's parameters into neurons; one shared between layers appears once, with the first of them.

    Returns:
        The parameters that split, in the order of ``model.named_parameters()``, and those left alone with the reason.

    Raises:
        InputError: If an argument is unusable, a parameter has no shape yet (a lazy layer) or no values (on the meta
            device), or no parameter is left that could be changed.
    """
    require_granularity(granularity)
    if filter_fn is not None and not callable(filter_fn):
        raise InputError(f"filter_fn is {filter_fn!r}: pass a function of a layer and its name")
    require_module(model)
    found: list[Neurons] = []
    left: list[LeftAlone] = []
    for name, layer, key, parameter in each_parameter(model):
        rule = rule_of(layer)
        split = rule(layer, granularity).get(key) if rule else None
        require_values({name: parameter})
        if is_norm(layer):
            left.append(LeftAlone(name, "norm layer"))
        elif isinstance(layer, nn.utils.parametrize.ParametrizationList):
            left.append(
                LeftAlone(name, f"{PARAMETRISED} (torch.nn.utils.parametrize.remove_parametrizations undoes it)")
            )
        elif (undo := _hook_on(layer, key)) is not None:
            left.append(LeftAlone(name, f"{HOOKED} (torch.nn.utils.{undo} undoes it)"))
        elif split is None:
            left.append(LeftAlone(name, f"{NO_RULE} {type(layer).__name__}.{key} (ws.register_layer adds one)"))
        elif "bias" in key and _makes_its_weights(layer):
            left.append(LeftAlone(name, "the bias of weights that are left alone"))
        elif parameter.is_complex():
            left.append(LeftAlone(name, "complex numbers"))
        elif parameter.numel() == 0:
            left.append(LeftAlone(name, "holds no elements"))
        elif filter_fn is not None and not filter_fn(layer, name.rpartition(".")[0]):
            left.append(LeftAlone(name, "excluded by filter_fn"))
        elif not parameter.requires_grad:
            left.append(LeftAlone(name, "frozen (requires_grad is False)"))
        else:
            split = split if isinstance(split, Split) else Split(split)
            if any(not 0 <= dim < parameter.dim() + (split.groups > 1) for dim in split.dims):
                shape = tuple(parameter.shape)
                raise InputError(f"the rule of {type(layer).__name__} names dimensions {split.dims} of {name}, {shape}")
            found.append(Neurons(name, type(layer).__name__, parameter, split.dims, split.groups, split.spare_unseen))
    if not found:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in left[:3]) or "it has no parameters"
        raise InputError(f"the model has no weights to scale ({reasons}); unfreeze a Linear or Conv layer")
    return found, left


def each_parameter(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Yield (full name, layer, name in the layer, parameter), each parameter once."""
    seen: set[int] = set()
    for prefix, layer in model.named_modules():
        for key, parameter in layer.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{key}" if prefix else key), layer, key, parameter
