"""Warm start: training simply goes on, with or without the optimizer's state.

"Warm Init" of Shin et al., NeurIPS 2024 (arXiv 2410.23495), and ``warm_rm`` of the authors' code, which resets
the momentum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from warmstart.methods.method import Method, Stage, has_state, reset_optimizer_
from warmstart.methods.report import Report
from warmstart.network import require_module, require_optimizer
from warmstart.undo import all_or_nothing


@dataclass(frozen=True)
class Warm(Method):
    """Go on with weights and optimizer as they are."""

    name: ClassVar[str] = "warm"
    summary: ClassVar[str] = "go on with the weights and the optimizer's state as they are"
    source: ClassVar[str] = "'Warm Init' in Shin et al., NeurIPS 2024, arXiv 2410.23495"
    acts: ClassVar[str] = "never"
    cost: ClassVar[str] = "nothing"
    limits: ClassVar[str] = "where it has lost plasticity: compare it with cold"
    page: ClassVar[str] = "compare.md#methods"

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Change nothing."""
        return warm_(model)


@dataclass(frozen=True)
class WarmReset(Method):
    """Go on with the weights; forget the optimizer's state."""

    name: ClassVar[str] = "warm-reset"
    summary: ClassVar[str] = "go on with the weights, reset the optimizer's momentum"
    source: ClassVar[str] = "'warm_rm' in the code of Shin et al., NeurIPS 2024, arXiv 2410.23495"
    acts: ClassVar[str] = "when data arrives"
    cost: ClassVar[str] = "nothing"
    limits: ClassVar[str] = "optimizers without momentum or moments"
    page: ClassVar[str] = "compare.md#methods"

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Reset the optimizer that goes on, if there is one."""
        if stage.optimizer is None:
            return warm_(model).with_notes("each stage makes its own optimizer: nothing to reset")
        if not has_state(stage.optimizer):
            return warm_(model).with_notes("the optimizer is new: nothing to reset")
        return warm_reset_(model, stage.optimizer)


def warm_(model: nn.Module) -> Report:
    """Leave a network as it is; the baseline that all others are measured against.

    Args:
        model: The network.

    Returns:
        A report that says that nothing changed.

    Raises:
        InputError: If it is no network.
    """
    require_module(model)
    return Report("warm", notes=("weights and optimizer state kept",))


@all_or_nothing
def warm_reset_(model: nn.Module, optimizer: torch.optim.Optimizer) -> Report:
    """Leave a network as it is and forget its optimizer's state, in place.

    Args:
        model: The network; not changed.
        optimizer: Its optimizer; momentum, moments and step counts start anew, settings stay.

    Returns:
        A report that says so.

    Raises:
        InputError: If one of the two is something else.
    """
    require_module(model)
    require_optimizer(optimizer)
    reset_optimizer_(optimizer)
    return Report("warm-reset", notes=("weights kept, optimizer state reset",))
