"""Which layers normalise their input."""

from __future__ import annotations

from torch import nn

_NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)

_NORM_NAMES = ("batchnorm", "instancenorm", "layernorm", "groupnorm", "rmsnorm")
"""How such layers of other libraries are called, behind a prefix; a PreNorm, SpectralNorm or WeightNorm is none."""


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer normalises its input, so that the scale of the weights before it cancels.

    Args:
        layer: Any module.

    Returns:
        True for batch, instance, layer, group and RMS norm, those of other libraries included by name.
    """
    return isinstance(layer, _NORMS) or type(layer).__name__.lower().rstrip("123d").endswith(_NORM_NAMES)


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
