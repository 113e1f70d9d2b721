"""Which layers normalise their input, or their weights."""

from __future__ import annotations

from torch import nn

_NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)

_NORM_NAMES = ("batchnorm", "instancenorm", "layernorm", "groupnorm", "rmsnorm")
"""Endings of the names of such layers in other libraries; a PreNorm, SpectralNorm or WeightNorm has none of them."""


_STANDARDISED = ("stdconv", "wsconv", "standardizedconv")
"""Parts of the names of convolutions that normalise their weights in the forward pass: timm's ScaledStdConv2d."""


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer normalises its input, so that the scale of the weights before it cancels.

    Returns:
        True for batch, instance, layer, group and RMS norm, those of other libraries included by name.
    """
    return isinstance(layer, _NORMS) or type(layer).__name__.lower().rstrip("123d").endswith(_NORM_NAMES)


def has_norm(model: nn.Module) -> bool:
    """Whether any layer normalises its input, or its weights as in NFNets.

    Returns:
        False where a scale ``s`` on every layer shrinks the output like ``s ** depth``.
    """
    return any(
        is_norm(layer) or any(part in type(layer).__name__.lower() for part in _STANDARDISED)
        for layer in model.modules()
    )


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch-norm layers of any kind; with any, a batch of one fails and running statistics lag behind weights."""
    return [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
