"""The moving average of negative gradients over a stream of batches:  G <- (1-alpha) G + alpha (-grad L)

Shin et al., DASH: Warm-Starting Neural Network Training in Stationary Settings without Loss of Plasticity,
NeurIPS 2024 (arXiv 2410.23495), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.batches import batches_that_matter, examples_in, micro_batches, tail, to_device
from warmstart.errors import InputError
from warmstart.neurons import Filter, Neurons, neurons

ForwardLoss = Callable[[nn.Module, Any], Tensor]
"""``forward_loss(model, batch) -> scalar``: the loss of one batch, a mean over its examples."""


class GradientEMA:
    """The average for any loop: call ``backward()`` yourself, oldest batch first, then ``ema.update()``.

    It holds one fp32 copy of the weights that can be scaled (fp64 where they are), made at the first update.

    Attributes:
        alpha: Rate of the average; the newest batch has the weight alpha.
        updates: How many batches have gone in.
        examples: How many examples went in, as far as `average_gradient` fed them; 0 in a loop of your own.
        left_out: How many older batches were left out before the first update.
        average: Parameter name -> G, of the parameter's shape; a parameter without any gradient has no entry.
        largest: Parameter name -> the largest norm of a gradient that went in, a scalar tensor.
    """

    def __init__(self, model: nn.Module, alpha: float = 0.3, *, filter_fn: Filter | None = None) -> None:
        """Prepare an average over the gradients of a model.

        Args:
            model: The network whose ``.grad`` will be read. It is not changed.
            alpha: Rate in (0, 1]; the average then spans about (2-alpha)/alpha batches.
            filter_fn: ``filter_fn(module, name)`` says which layers take part.

        Raises:
            InputError: If alpha is out of range or the model has nothing to scale.
        """
        batches_that_matter(alpha, 0)  # the range check
        self.alpha = alpha
        self.updates = 0
        self.examples = 0
        self.left_out = 0
        self.average: dict[str, Tensor] = {}
        self.largest: dict[str, Tensor] = {}
        self.filter_fn = filter_fn
        self._parameters: list[Neurons] = neurons(model, filter_fn=filter_fn)[0]

    @torch.no_grad()
    def update(self, weight: float = 1.0) -> None:
        """Take the gradients that are in ``.grad`` into the average; nothing else is read or changed.

        A ``.grad`` of None counts as zero. Zeroing gradients, eval mode and undoing a loss scale are the caller's.

        Args:
            weight: Factor on this batch's gradient, such as ``1 / n`` for a loss that is a sum over n examples.
        """
        for entry in self._parameters:
            gradient = entry.parameter.grad
            if entry.name in self.average:
                self.average[entry.name].mul_(1 - self.alpha)
            if gradient is None:
                continue
            gradient = gradient.to_dense() if gradient.is_sparse else gradient
            if entry.name not in self.average:
                dtype = torch.promote_types(entry.parameter.dtype, torch.float32)
                self.average[entry.name] = torch.zeros_like(entry.parameter, dtype=dtype)
                self.largest[entry.name] = torch.zeros((), device=gradient.device)
            self.average[entry.name].add_(gradient, alpha=-self.alpha * weight)
            norm = torch.linalg.vector_norm(gradient, dtype=torch.float32) * abs(weight)
            torch.maximum(self.largest[entry.name], norm, out=self.largest[entry.name])
        self.updates += 1


def average_gradient(
    model: nn.Module,
    batches: Iterable[Any],
    forward_loss: ForwardLoss,
    *,
    alpha: float = 0.3,
    tolerance: float = 1e-6,
    filter_fn: Filter | None = None,
    micro_batch_size: int | None = None,
    full_precision: bool = True,
) -> GradientEMA:
    """Average a model's negative gradients over the tail of a stream of batches.

    The model runs in eval mode and comes out as it went in: training flags, ``.grad`` and buffers included.

    Args:
        model: The network; batches are moved to the device of its first parameter.
        batches: A `DataLoader`, sequence or iterable of batches, oldest first.
        forward_loss: ``forward_loss(model, batch) -> scalar``, a mean over the batch's examples.
        alpha: Rate of the average, in (0, 1].
        tolerance: Relative error that leaving out old batches may cause; 0 reads all.
        filter_fn: ``filter_fn(module, name)`` says which layers take part.
        micro_batch_size: Examples computed at a time; a batch's gradient is the same, its memory less.
        full_precision: Switch autocast and TF32 off for the pass.

    Returns:
        The average, with the number of batches and examples that went in.

    Raises:
        InputError: If a setting is out of range, there is no batch, the loader shuffles, or a loss is not a
            differentiable scalar.
    """
    if micro_batch_size is not None and micro_batch_size < 1:
        raise InputError(f"micro_batch_size is {micro_batch_size}; it must be at least 1")
    ema = GradientEMA(model, alpha, filter_fn=filter_fn)
    source = tail(batches, batches_that_matter(alpha, tolerance))
    ema.left_out = source.left_out
    device = next(model.parameters()).device
    with gradient_pass(model, full_precision=full_precision):
        for batch in source.batches:
            ema.examples += examples_in(batch)
            for piece, share in micro_batches(batch, micro_batch_size):
                (share * _checked(forward_loss(model, to_device(piece, device)))).backward()
            ema.update()
            model.zero_grad(set_to_none=True)
    return ema


def as_forward_loss(
    loss_fn: Callable[[Any, Any], Tensor] | None, forward_loss: ForwardLoss | None = None
) -> ForwardLoss:
    """Bring the three ways to say what the loss is into one form.

    Args:
        loss_fn: ``loss_fn(output, target)`` for batches ``(input, target)``.
        forward_loss: ``forward_loss(model, batch) -> scalar``.

    Returns:
        ``forward_loss``; without either, batches are mappings and the model's output carries its ``.loss``.

    Raises:
        InputError: If both are given.
    """
    if forward_loss is not None:
        if loss_fn is not None:
            raise InputError("give loss_fn or forward_loss, not both")
        return forward_loss
    return _loss_of_mapping if loss_fn is None else _loss_of_pair(loss_fn)


def _loss_of_pair(loss_fn: Callable[[Any, Any], Tensor]) -> ForwardLoss:
    def loss_of(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(
                f"a batch is a {type(batch).__name__}, not (input, target): pass forward_loss=, or for mappings "
                "leave loss_fn out"
            )
        loss: Tensor = loss_fn(model(batch[0]), batch[1])
        return loss

    return loss_of


def _loss_of_mapping(model: nn.Module, batch: Any) -> Tensor:
    if not hasattr(batch, "keys"):
        raise InputError(f"without loss_fn a batch must be a mapping, not a {type(batch).__name__}: pass loss_fn=")
    output = model(**batch)
    loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if loss is None:
        raise InputError("the model's output has no .loss: put the labels into the batch, or pass forward_loss=")
    return loss  # type: ignore[no-any-return]  # average_gradient checks that it is a scalar tensor


def _checked(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"has shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"is a {type(loss).__name__}"
        raise InputError(f"the loss {what}; it must be one number, the mean over the batch's examples")
    if not loss.requires_grad:
        raise InputError("the loss has no gradient graph: compute it from the model's output without detach or no_grad")
    return loss.squeeze()


@contextmanager
def gradient_pass(model: nn.Module, *, full_precision: bool = True) -> Iterator[None]:
    """Eval mode, gradients on, empty ``.grad``; all of it put back at the end, whatever happens.

    Args:
        model: The network.
        full_precision: Switch autocast and TF32 off meanwhile.

    Yields:
        Nothing; the model is ready for forward and backward passes.
    """
    training = {layer: layer.training for layer in model.modules()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if full_precision:
            stack.enter_context(_fp32(next(model.parameters()).device.type))
        try:
            model.eval()
            model.zero_grad(set_to_none=True)
            yield
        finally:
            for layer, flag in training.items():
                layer.training = flag
            for parameter, gradient in gradients.items():
                parameter.grad = gradient


@contextmanager
def _fp32(device_type: str) -> Iterator[None]:
    """No autocast and no TF32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = False
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
