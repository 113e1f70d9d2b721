"""Weights seen as the matrices that inputs are multiplied by."""

from __future__ import annotations

from torch import Tensor, nn


def embeddings(model: nn.Module) -> list[nn.Module]:
    """The embedding layers, whose weights are looked up and multiply nothing."""
    return [layer for layer in model.modules() if isinstance(layer, (nn.Embedding, nn.EmbeddingBag))]


def is_attention(layer: nn.Module) -> bool:
    """Whether a layer is a `torch.nn.MultiheadAttention`."""
    return isinstance(layer, nn.MultiheadAttention)


def matrices_of(layer: nn.Module, key: str, weight: Tensor) -> Tensor | str:
    """A weight as the matrices that inputs are multiplied by; of packed projections, queries and keys alone.

    Returns:
        A view (blocks, *kernel, d_out, d_in) of the weight, or why there is none.
    """
    if isinstance(layer, nn.Linear):
        return weight[None]
    if isinstance(layer, nn.MultiheadAttention):
        return weight.unflatten(0, (3, -1))[:2] if key == "in_proj_weight" else weight[None]
    if isinstance(layer, nn.modules.conv._ConvNd):
        if layer.groups > 1 and layer.groups == layer.in_channels:
            return "depthwise: an output has one input, so an isometry would keep only signs"
        blocks: Tensor = weight.unflatten(0, (layer.groups, -1))  # a grouped convolution is block diagonal
        blocks = blocks.transpose(1, 2) if layer.transposed else blocks
        return blocks.movedim((1, 2), (-2, -1))
    if f"{type(layer).__module__}.{type(layer).__qualname__}" == "transformers.pytorch_utils.Conv1D":
        return "a Conv1D of transformers may hold several matrices in one; put an nn.Linear for each in its place"
    return f"{type(layer).__name__} is neither a Linear nor a Conv layer"


def rows_of(layer: nn.Module, key: str, weight: Tensor) -> Tensor | None:
    """A weight as rows, one for each output, of all that enters it; packed projections and groups apart.

    Returns:
        A view (blocks, d_out, d_in, *kernel) of the weight, or of its gradient; None where there is none.
    """
    if isinstance(layer, nn.Linear) and key == "weight":
        return weight[None]
    if isinstance(layer, nn.MultiheadAttention) and key.endswith("_weight"):
        packed: Tensor = weight.unflatten(0, (3 if key == "in_proj_weight" else 1, -1))
        return packed
    if isinstance(layer, nn.modules.conv._ConvNd) and key == "weight":
        blocks: Tensor = weight.unflatten(0, (layer.groups, -1))
        return blocks.transpose(1, 2) if layer.transposed else blocks
    return None
