"""Weights seen as the matrices that inputs are multiplied by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

ROLES = (("query", "key", "value"), ("queries", "keys", "values"), ("q", "k", "v"))
"""What three linear layers side by side are called that are otherwise named alike: `to_q`, `to_k`, `to_v`."""

PACKED = re.compile("qkv|query_key_value", re.IGNORECASE)
"""In the name of a linear layer that holds all three."""

_BY_HEAD = "its rows may be ordered by head: put an nn.Linear for each in its place"


@dataclass(frozen=True)
class Projection:
    """Which of attention's projections a linear layer's weight holds."""

    parts: int
    """Matrices of equal size that lie one after the other in its rows."""
    queries_and_keys: int
    """How many of them, the first ones, make queries or keys."""
    unclear: str = ""
    """Why its rows cannot be told apart, and what to do; empty where they can."""


def attention_projections(model: nn.Module) -> Mapping[int, Projection]:
    """The linear layers that make queries, keys and values, told by what lies side by side within one module.

    These are three layers whose names differ in the role alone; two where one is packed (``q`` and ``kv``, ``qk`` and
    ``v``); or one for all (``qkv``), with as many rows of each, queries first, as in timm. A module that knows a
    ``key_dim`` (TinyViT) or is ``head_first`` (MaxViT) may order the rows by head, and so do layers called
    ``query_key_value``: unclear.

    Returns:
        By the weight's id. `torch.nn.MultiheadAttention` is not among them.
    """
    found: dict[int, Projection] = {}
    for module in model.modules():
        linear = {name: layer for name, layer in module.named_children() if isinstance(layer, nn.Linear)}
        for name, layer in linear.items():
            if PACKED.search(name):
                says_so = hasattr(module, "key_dim") or getattr(module, "head_first", False) is True
                by_head = says_so or "query_key_value" in name.lower()
                found[id(layer.weight)] = Projection(3, 2, _BY_HEAD if by_head or layer.out_features % 3 else "")
        for names, projections in _side_by_side(list(linear)):
            found.update({id(linear[name].weight): one for name, one in zip(names, projections, strict=True)})
    return found


def _side_by_side(names: list[str]) -> Iterator[tuple[tuple[str, ...], tuple[Projection, ...]]]:
    """Names that differ in the role alone, with what each holds."""
    one, value = Projection(1, 1), Projection(1, 0)
    for query, key, val in ROLES:
        for name in names:
            for place in re.finditer(query, name):
                before, after = name[: place.start()], name[place.end() :]
                apart = (name, f"{before}{key}{after}", f"{before}{val}{after}")
                keys_and_values = (name, f"{before}{key}{val}{after}")
                if set(apart) <= set(names):
                    yield apart, (one, one, value)
                elif set(keys_and_values) <= set(names):
                    yield keys_and_values, (one, Projection(2, 1))
            queries_and_keys = (name, name.replace(query + key, val))
            if query + key in name and set(queries_and_keys) <= set(names):
                yield queries_and_keys, (Projection(2, 2), value)


def embeddings(model: nn.Module) -> list[nn.Module]:
    """The embedding layers, whose weights are looked up and multiply nothing."""
    return [layer for layer in model.modules() if isinstance(layer, (nn.Embedding, nn.EmbeddingBag))]


def is_attention(layer: nn.Module) -> bool:
    """Whether a layer is a `torch.nn.MultiheadAttention`."""
    return isinstance(layer, nn.MultiheadAttention)


def matrices_of(
    layer: nn.Module, key: str, weight: Tensor, projection: Projection | None = None, *, everything: bool = False
) -> Tensor | str:
    """A weight as the matrices that inputs are multiplied by.

    Of `torch.nn.MultiheadAttention`'s packed projections, and of a linear layer with a ``projection``, these are
    queries and keys alone, or with ``everything`` the linear layer's values too.

    Returns:
        A view (blocks, *kernel, d_out, d_in) of the weight, or why there is none.
    """
    if isinstance(layer, nn.Linear):
        if projection is None or projection.unclear:
            return weight[None]
        parts: Tensor = weight.unflatten(0, (projection.parts, -1))
        return parts if everything else parts[: projection.queries_and_keys]
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
