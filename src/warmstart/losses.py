"""The training loss: the engine's cross-entropy, and the three ways in which a caller may give another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from warmstart.errors import InputError

ForwardLoss = Callable[[Any, Any], Tensor]
"""``forward_loss(model, batch) -> scalar``: the loss of one batch, a mean over its examples. The caller says
of which types model and batch are."""


def training_loss(
    output: Tensor, labels: Tensor, reduction: Literal["mean", "sum"] = "mean", *, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in nats of logits (N, classes) and labels (N,): what training minimises and DASH differentiates."""
    return cross_entropy(output, labels, reduction=reduction, label_smoothing=label_smoothing)


def as_forward_loss(
    loss_fn: Callable[[Any, Any], Tensor] | None, forward_loss: ForwardLoss | None = None
) -> ForwardLoss:
    """Bring loss_fn or forward_loss into one form; with neither, batches are mappings and outputs have a ``.loss``."""
    for name, given in (("loss_fn", loss_fn), ("forward_loss", forward_loss)):
        if given is not None and not callable(given):
            raise InputError(f"{name} is {given!r}: pass a function, such as torch.nn.functional.cross_entropy")
    if forward_loss is not None:
        if loss_fn is not None:
            raise InputError("give loss_fn or forward_loss, not both")
        return forward_loss
    return _loss_of_mapping if loss_fn is None else partial(_loss_of_pair, loss_fn)


def _loss_of_pair(loss_fn: Callable[[Any, Any], Tensor], model: nn.Module, batch: Any) -> Tensor:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InputError(
            f"a batch is a {type(batch).__name__}, not (input, target): for a single batch pass [(input, target)], "
            "for mappings leave loss_fn out, for anything else pass forward_loss="
        )
    return loss_fn(model(batch[0]), batch[1])


def _loss_of_mapping(model: nn.Module, batch: Any) -> Tensor:
    if not hasattr(batch, "keys"):
        raise InputError(f"without loss_fn a batch must be a mapping, not a {type(batch).__name__}: pass loss_fn=")
    output = model(**batch)
    loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if loss is None:
        raise InputError("the model's output has no .loss: put the labels into the batch, or pass forward_loss=")
    return loss  # type: ignore[no-any-return]  # average_gradient checks that it is a scalar tensor
