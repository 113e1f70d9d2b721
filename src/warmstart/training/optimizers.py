"""The optimizers of a comparison, and a training step that reads the same for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.layers.output import hidden_matrices
from warmstart.training.recipe import Recipe

SAM_RHO = 0.1
"""Radius of SAM's ascent step, the DASH paper's."""

T = TypeVar("T")


def make_optimizer(recipe: Recipe, model: nn.Module, head: nn.Module | None = None) -> Optimizer:
    """Make an optimizer for all parameters.

    Args:
        recipe: Which one, its rate, momentum and weight decay.
        model: The network.
        head: Its output layer, whose weights Muon leaves to AdamW; None if that is no layer with rules for neurons,
            since AdamW has the weights of those in any case.

    Returns:
        The optimizer. Update through `step`: SAM (arXiv 2010.01412) needs two gradients an update.

    Raises:
        InputError: If nothing is trainable.
    """
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise InputError("the network has no trainable parameter; leave some unfrozen")
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": _fused(parameters)}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, betas=(recipe.momentum, 0.999), **common)
    if recipe.optimizer == "muon":
        return _muon(recipe, parameters, hidden_matrices(model, head))
    common |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, **common)
    from pytorch_optimizer import SAM  # its import takes more than a second

    sam: Optimizer = SAM(parameters, torch.optim.SGD, rho=SAM_RHO, **common)
    return sam


def _muon(recipe: Recipe, parameters: list[nn.Parameter], hidden: list[nn.Parameter]) -> Optimizer:
    """Muon (Jordan et al. 2024) for hidden matrices and kernels, AdamW for the rest, as its authors say."""
    from pytorch_optimizer import Muon

    # Adjusted, a matrix's update is as large as AdamW's (Moonlight, arXiv 2502.16982), so that one rate serves both.
    usual = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    taken = set(hidden)
    groups = [
        {"params": hidden, "momentum": recipe.momentum, "use_muon": True, "use_adjusted_lr": True},
        {
            "params": [p for p in parameters if p not in taken],
            "betas": (recipe.momentum, 0.999),
            "eps": 1e-8,
            "use_muon": False,
        },
    ]
    muon: Optimizer = Muon([{**usual, **group} for group in groups if group["params"]])
    return muon


def step(optimizer: Optimizer, backward: Callable[[], T]) -> T:
    """Do one update, which is one step whatever the optimizer.

    SAM's second pass is at the perturbed weights, in the mode that the network is in: in train mode batch norm's
    running statistics follow both passes and move twice an update. So it is in the DASH authors' loop, whose
    figures we compare with; Google's original SAM keeps the first pass's statistics only.

    Args:
        optimizer: From `make_optimizer`, or any whose `step()` needs no closure.
        backward: Computes the loss on the batch and calls `backward()` on it. Called once, or twice for SAM.

    Returns:
        What `backward` returned when it was called first, at the weights before the update.
    """
    optimizer.zero_grad()
    result = backward()
    if isinstance(optimizer, _TwoPass):
        optimizer.first_step(zero_grad=True)
        backward()
        optimizer.second_step()
    else:
        optimizer.step()
    return result


@runtime_checkable
class _TwoPass(Protocol):
    """What SAM has beyond an optimizer; asked for in this way because importing its package is slow."""

    def first_step(self, zero_grad: bool = False) -> None: ...

    def second_step(self, zero_grad: bool = False) -> None: ...


def _fused(parameters: list[nn.Parameter]) -> bool | None:
    """Choose PyTorch's fused update, or leave the choice to PyTorch, which never takes that one by itself."""
    # On the CPU fusing shortens small-cnn's update from 0.68 to 0.46 ms (SGD) and from 1.47 to 0.64 ms (AdamW); on a
    # GPU one launch updates many parameters. But the CPU's kernel walks through memory and takes gradient and momentum
    # to lie as the parameter does: where strides differ it pairs the wrong numbers, silently (seen in PyTorch 2.13). So
    # it is used where all is contiguous.
    return True if all(p.is_floating_point() and _dense(p) for p in parameters) else None


def _dense(p: nn.Parameter) -> bool:
    if p.is_cuda and p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last):
        return True  # the GPU's kernel compares strides, and refuses those that differ
    return p.device.type in {"cpu", "cuda"} and p.is_contiguous()
