"""The layer that feeds a network's output, and the matrices that lie before it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.layers.matrices import embeddings
from warmstart.layers.neurons import each_parameter, rule_of
from warmstart.layers.norms import is_norm


def output_layer(model: nn.Module, output: Tensor) -> tuple[str, nn.Module]:
    """The layer that feeds the output or loss, found by walking back its autograd graph.

    The order in which modules were registered says nothing about which one comes last.

    Returns:
        The name of the nearest layer with weights, and the layer.

    Raises:
        InputError: If no layer with trainable weights lies behind the output, or the nearest is of an unknown kind.
    """
    owners: dict[int, tuple[str, nn.Module]] = {}
    for name, layer, _, parameter in each_parameter(model):
        if not is_norm(layer) and (rule_of(layer) is not None or parameter.dim() > 1):
            owners[id(parameter)] = (name.rpartition(".")[0], layer)
    frontier: Iterable[torch.autograd.graph.Node] = [output.grad_fn] if output.grad_fn is not None else []
    seen: set[torch.autograd.graph.Node] = set()
    while frontier:
        for node in frontier:
            owner = owners.get(id(getattr(node, "variable", None)))
            if owner is None:
                continue
            if rule_of(owner[1]) is None:
                where = f"those of {owner[0] or 'the model itself'}, a {type(owner[1]).__name__}"
                raise InputError(f"the weights nearest to the output are {where}: name the head yourself")
            return owner
        seen.update(frontier)
        frontier = [
            following
            for node in frontier
            for following, _ in reversed(node.next_functions)  # a product's weights stand after its input
            if following is not None and following not in seen
        ]
    raise InputError("no trainable Linear or Conv layer lies behind the model's output; name the head yourself")


def hidden_matrices(model: nn.Module, head: nn.Module | None) -> list[nn.Parameter]:
    """The matrices and kernels that lie before the output layer.

    Returns:
        Their parameters, in the network's order. Not among them are the head's, embeddings, biases, and what belongs to
        a layer without a rule for neurons: norm layers, learned positions, layers that nobody has registered.
    """
    others = {head, *embeddings(model)}
    return [
        parameter
        for _, layer, key, parameter in each_parameter(model)
        if layer not in others and rule_of(layer) is not None and parameter.dim() >= 2 and "bias" not in key
    ]
