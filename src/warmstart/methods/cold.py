"""Cold start: fresh weights and a fresh optimizer whenever new data arrives.

"Random Init" of Shin et al., NeurIPS 2024 (arXiv 2410.23495). Each stage draws anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from warmstart.errors import InputError
from warmstart.methods.method import Method, Stage, require_own_memory, reset_optimizer_
from warmstart.methods.report import Report
from warmstart.network import require_module, require_optimizer, require_writable, tensors_of
from warmstart.processes import is_sharded, laid_out_as, on_inner_module, team_of
from warmstart.undo import all_or_nothing, keep


@dataclass(frozen=True)
class Cold(Method):
    """Train from scratch on all data so far."""

    name: ClassVar[str] = "cold"
    summary: ClassVar[str] = "train from scratch: fresh weights, a new draw each time, and a fresh optimizer"
    source: ClassVar[str] = "'Random Init' in Shin et al., NeurIPS 2024, arXiv 2410.23495"
    acts: ClassVar[str] = "when data arrives"
    cost: ClassVar[str] = "all training begins anew"
    limits: ClassVar[str] = "where retraining from scratch takes too long"
    page: ClassVar[str] = "compare.md#methods"

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Draw the network anew."""
        return cold_(model, stage.fresh(), optimizer=stage.optimizer)


@all_or_nothing
@torch.no_grad()
def cold_(model: nn.Module, fresh: nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> Report:
    """Give a network the weights of a freshly drawn one, in place.

    Args:
        model: The network; every parameter and buffer changes.
        fresh: A newly made network of the same shape; it is only read. Under DistributedDataParallel and FSDP2 the
            first process's decides for all.
        optimizer: The optimizer to reset with it, if it goes on.

    Returns:
        A report that says what was drawn anew.

    Raises:
        InputError: If one of the two is no network, or they differ in a parameter's or buffer's name or shape, or
            share one; nothing is changed then.

    Example:
        >>> def make_model():
        ...     return torch.nn.Linear(4, 2)
        >>> model, fresh = make_model(), make_model()
        >>> report = ws.cold_(model, fresh)
        >>> torch.equal(model.weight, fresh.weight)
        True
    """
    model, team = team_of(model)
    if optimizer is not None:
        require_optimizer(optimizer)
    team.attempt(partial(require_alike, model, fresh))
    ours, theirs = tensors_of(model), tensors_of(fresh)
    team.attempt(partial(require_writable, ours))
    keep(ours.values())
    for name, tensor in ours.items():
        tensor.copy_(laid_out_as(tensor, team.broadcast_tensor(theirs[name])))
    if optimizer is not None:
        reset_optimizer_(optimizer)
    state = "no optimizer given" if optimizer is None else "optimizer state reset"
    note = f"{len(ours)} parameters and buffers drawn anew, {state}"
    return Report("cold", notes=(note,), warnings=on_inner_module(team))


def require_alike(model: nn.Module, fresh: nn.Module) -> None:
    """Raise InputError unless fresh is a second network with the model's names, shapes and sharding, and has values."""
    require_module(fresh, "fresh")
    ours, theirs = tensors_of(model), tensors_of(fresh)
    if differing := sorted(
        name
        for name in ours.keys() | theirs.keys()
        if getattr(ours.get(name), "shape", None) != getattr(theirs.get(name), "shape", None)
    ):
        raise InputError(f"fresh is another kind of network than model: they differ in {differing[0]}")
    for name, tensor in theirs.items():
        if tensor.is_meta:
            raise InputError(f"fresh has no values: its {name} is on the meta device")
        if is_sharded(tensor) and getattr(tensor, "placements", None) != getattr(ours[name], "placements", None):
            raise InputError(f"fresh and model are sharded differently in {name}: pass fresh unsharded, as it is made")
    require_own_memory(model, theirs, "fresh")
