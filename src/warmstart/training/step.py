"""One training step: gradients in the precision of training, and the optimizer's update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.losses import training_loss
from warmstart.precision import rounding_to_tf32
from warmstart.training.cuda_graph import Gradients, RecordedGradients, can_record
from warmstart.training.optimizers import step
from warmstart.training.shares import Shares

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``step(inputs, labels) -> (loss, accuracy)`` of the batch before the update: two numbers on the device."""


def make_step(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    precision: str = "tf32",
    captured: bool = True,
    label_smoothing: float = 0.0,
    clip: float | None = None,
    after_backward: Callable[[], None] | None = None,
    after_step: Callable[[], None] | None = None,
    shares: Shares | None = None,
    watched: dict[str, Tensor] | None = None,
) -> Step:
    """Make the training step of one stage, the same one whatever acts on it.

    Args:
        model: The network, in train mode whenever the step is called.
        optimizer: Its optimizer; a change of a group's ``lr`` holds from the next update on.
        precision: ``bf16`` computes the forward pass under autocast. TF32 is switched by `tf32`, around the calls.
        captured: On a GPU, record forward and backward pass as a CUDA graph; update and callbacks run after it.
        label_smoothing: Of the loss.
        clip: The largest norm of all gradients together, behind ``after_backward``; None for any.
        after_backward: Called with the gradients in place, before the update; twice an update of SAM's.
        after_step: Called after the update. Both callbacks change the network in place.
        shares: How the batches are shared among several processes; None alone. What the step returns is then this
            process's part of the batch's loss and accuracy. Nothing is recorded then.
        watched: What the network's forward hooks put activations into, detached. For the callbacks it holds those of
            the batch under way, recorded or not.

    Returns:
        The step.
    """
    gradients: Gradients = partial(_gradients, model, precision, shares, label_smoothing)
    if captured and shares is None and can_record(model):
        gradients = RecordedGradients(gradients, model, watched)

    def train_on(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        def backward() -> tuple[Tensor, Tensor]:
            result = gradients(inputs, labels)
            if shares is not None:
                shares.sum_gradients()
            if after_backward is not None:
                after_backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return result

        result = step(optimizer, backward)
        if after_step is not None:
            after_step()
        return result

    return train_on


def _gradients(
    model: nn.Module, precision: str, shares: Shares | None, smoothing: float, inputs: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward and backward pass; loss and accuracy, weighted as this process's share."""
    if inputs.is_cuda and inputs.dim() == 4 and precision != "fp32":
        # The layout of tensor cores' convolutions; all activations follow, and the weights stay as they are.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with _autocast(precision, inputs.device):
        output = model(inputs)
        loss = training_loss(output, labels, label_smoothing=smoothing)
        loss = loss if shares is None else loss * shares.weight
    loss.backward()
    accuracy = (output.detach().argmax(1) == labels).float().mean()
    return loss.detach(), accuracy if shares is None else accuracy * shares.weight


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Let a GPU's matrix products and convolutions round their inputs to TF32, or not; put back at the end."""
    with rounding_to_tf32(allowed) if device.type == "cuda" else nullcontext():
        yield
