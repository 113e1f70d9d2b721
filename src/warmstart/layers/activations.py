"""Activation functions that are modules: CReLU, and norm layers without parameters before any of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.layers.norms import is_norm


class CReLU(nn.Module):
    """CReLU(x) = (relu(x), relu(-x)), one behind the other along dimension 1: half of it is never silent.

    Shang et al. 2016 (arXiv 1603.05201); for plasticity Abbas et al. 2023 (arXiv 2303.07507).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) -> (batch, 2 channels, ...)."""
        return torch.relu(torch.cat([x, -x], 1))


_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid),
    CReLU,
)

_CONVOLUTION = nn.modules.conv._ConvNd


class FixedLayerNorm(nn.Module):
    """Layer norm without gain and offset: over the last dimension, or over all but the batch where maps come in."""

    def __init__(self, *, maps: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.maps = maps
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Mean 0 and variance 1 of each example, or of each of its positions."""
        normalised: Tensor = torch.nn.functional.layer_norm(x, x.shape[1:] if self.maps else x.shape[-1:], eps=self.eps)
        return normalised

    def extra_repr(self) -> str:
        """Over what it normalises."""
        return f"maps={self.maps}"


def normalise_activations_(model: nn.Module) -> list[str]:
    """Put a `FixedLayerNorm` before each activation module that no norm layer precedes, in place.

    One precedes it where it comes right before it in an `nn.Sequential`, dropout and the like between them, or where
    the module that holds the activation has norm layers of its own. The names of parameters stay, but for PReLU's.

    Returns:
        The names of the activations.

    Raises:
        InputError: If it cannot be seen whether an activation's input are maps or vectors; nothing is changed then.
    """
    wanted = [(parent, key, name, _takes_maps(parent, key, name)) for parent, key, name in _unnormalised(model)]
    for parent, key, _, maps in wanted:
        setattr(parent, key, nn.Sequential(FixedLayerNorm(maps=maps), parent.get_submodule(key)))
    return [name for _, _, name, _ in wanted]


def _unnormalised(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """The module that holds an activation, its name there, and its whole name."""
    for name, parent in model.named_modules():
        children = list(parent.named_children())
        for position, (key, child) in enumerate(children):
            if isinstance(child, _ACTIVATIONS):
                before = [layer for _, layer in children[:position]]
                siblings = _last_with_weights(before) if isinstance(parent, nn.Sequential) else children
                normed = any(is_norm(layer) for _, layer in siblings)
                if not normed:
                    yield parent, key, f"{name}.{key}".lstrip(".")


def _last_with_weights(before: list[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Of the modules before one, the last that is a norm or has weights: a norm in a block before it is seen too."""
    inner = [layer for module in before for layer in module.modules()]
    telling = [layer for layer in inner if is_norm(layer) or isinstance(layer, (nn.Linear, _CONVOLUTION))]
    return [("", telling[-1])] if telling else []


def _takes_maps(parent: nn.Module, key: str, name: str) -> bool:
    """Whether convolutions, rather than linear layers, come before an activation."""
    children = dict(parent.named_children())
    before = list(children.values())[: list(children).index(key)]
    inner = [layer for module in before for layer in module.modules()] or list(parent.modules())
    kinds = [isinstance(layer, _CONVOLUTION) for layer in inner if isinstance(layer, (nn.Linear, _CONVOLUTION))]
    if not kinds or (not isinstance(parent, nn.Sequential) and len(set(kinds)) > 1):
        raise InputError(
            f"what comes before {name} cannot be told, maps or vectors: put a norm layer before it yourself"
        )
    return kinds[-1]
