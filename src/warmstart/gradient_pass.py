"""A pass over a model that computes gradients and leaves everything else as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.batches import to_device
from warmstart.errors import InputError
from warmstart.layers.recurrent import recurrent_layers
from warmstart.losses import ForwardLoss
from warmstart.network import detached_caches, eval_mode, saved_buffers, saved_caches
from warmstart.precision import in_fp32
from warmstart.processes import reshard
from warmstart.undo import afterwards, on_failure


def scalar_loss(model: nn.Module, batch: Any, forward_loss: ForwardLoss, device: torch.device) -> Tensor:
    """The loss of a batch, with its graph; InputError unless it is one number that has one."""
    loss = forward_loss(model, to_device(batch, device))
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"has shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"is a {type(loss).__name__}"
        raise InputError(f"the loss {what}; it must be one number, the mean over the batch's examples")
    if not loss.requires_grad:
        raise InputError("the loss has no gradient graph: compute it from the model's output without detach or no_grad")
    return loss.squeeze()


@dataclass(frozen=True)
class GradientPass:
    """A model whose gradients are being computed, by as many backward passes as it takes."""

    drop_caches: Callable[[], None]
    """Drops the tensors of a graph that the model has kept."""
    _gradients: dict[Tensor, Tensor | None]
    """Every ``.grad`` of the model's own parameters, as it was."""
    _apart: dict[Tensor, Tensor | None]
    """Those of other leaves while a backward pass runs."""

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient to ``.grad`` of the model alone: a loss function may have weights of its own."""
        for leaf in leaves(loss):
            if leaf not in self._gradients:
                self._apart.setdefault(leaf, leaf.grad)
                leaf.grad = None  # a backward pass adds to it in place
        try:
            loss.backward()  # not with inputs=, which reentrant checkpointing refuses
        finally:
            self.put_apart_back()
        self.drop_caches()

    def put_apart_back(self) -> None:
        """Give leaves that are not the model's their gradients back."""
        for leaf, gradient in self._apart.items():
            leaf.grad = gradient
        self._apart.clear()


def leaves(loss: Tensor) -> Iterator[Tensor]:
    """The tensors to whose ``.grad`` a backward pass adds, which its graph ends in."""
    seen = {loss.grad_fn}
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        following = {after for after, _ in node.next_functions} - seen - {None} if node is not None else set()
        seen |= following
        waiting += following


@contextmanager
def gradient_pass(model: nn.Module, *, full_precision: bool = True) -> Iterator[GradientPass]:
    """Eval mode, gradients on, empty ``.grad``; restores these and all buffers at the end, also after an error.

    Yields:
        What computes gradients.
    """
    gradients: dict[Tensor, Tensor | None] = {parameter: parameter.grad for parameter in model.parameters()}
    dropouts = {layer: layer.dropout for layer in recurrent_layers(model)}

    def put_back() -> None:
        reshard(model)
        for layer, dropout in dropouts.items():
            layer.dropout = dropout
        for parameter, gradient in gradients.items():
            parameter.grad = gradient

    with ExitStack() as stack:
        on_failure(stack.close)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if full_precision:
            stack.enter_context(in_fp32(next(model.parameters()).device.type))
        stack.enter_context(afterwards(saved_buffers(model)))
        stack.enter_context(afterwards(detached_caches(model)))
        running = GradientPass(saved_caches(model), gradients, {})
        stack.enter_context(afterwards(running.drop_caches))
        stack.enter_context(afterwards(running.put_apart_back))
        stack.enter_context(eval_mode(model))
        stack.enter_context(afterwards(put_back))
        for layer in dropouts:  # cuDNN differentiates them in train mode only; without dropout it is the same
            layer.training, layer.dropout = True, 0.0
        model.zero_grad(set_to_none=True)
        yield running
