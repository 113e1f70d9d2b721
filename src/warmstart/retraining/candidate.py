"""What a candidate begins with: the weights of the stage before, in a network that has the classes of now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.runs.grid_folder import CHECKPOINT, GridFolder
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run
from warmstart.runs.state import RunState
from warmstart.runs.task import Task
from warmstart.storage.checkpoint import Checkpoint


@dataclass(frozen=True)
class StageFolder(GridFolder):
    """The folder of one training of a stage, in which its checkpoint lies."""

    def file(self, key: RunKey) -> Path:
        """The checkpoint."""
        return self.path / CHECKPOINT


@dataclass(frozen=True)
class Parent:
    """The stage that a training goes on from."""

    checkpoint: Checkpoint
    classes: int
    """How many classes its network has."""
    method: str
    optimizer: str


def begin(task: Task, key: RunKey, folder: StageFolder, parent: Parent | None) -> list[str]:
    """Write the checkpoint that a training begins with, unless it has begun.

    The recipe's learning rate and the like hold from now on; moments are kept if the optimizer is the same, and the
    method's tensors if the method is.

    Args:
        task: The stage's.
        key: The training's.
        folder: Its folder.
        parent: The stage before; None to begin with a new network.

    Returns:
        What else than weights has changed, one sentence each.

    Raises:
        InputError: If the network cannot grow to the classes of now.
    """
    if folder.file(key).exists() or parent is None:
        return []
    run = Run(task, key, None)
    saved, notes = parent.checkpoint, []
    state = RunState.from_saved(saved.metadata, saved.tensors)
    fresh = {name: tensor.detach().clone() for name, tensor in run.model.state_dict().items()}
    grown = grown_state(saved.model_state, fresh, parent.classes, task.model)
    run.model.load_state_dict(grown)
    if parent.optimizer == key.optimizer and run.optimizer is not None and saved.optimizer_state is not None:
        _load_moments(run.optimizer, saved.optimizer_state)
    else:
        notes.append(f"the optimizer is {key.optimizer} now and was {parent.optimizer}: its moments begin anew")
    of_method = {name: _like(grown.get(name), tensor) for name, tensor in state.of_method.items()}
    if parent.method != key.method:
        notes.append(f"the method is {key.method} now and was {parent.method}: what it keeps begins anew")
        of_method = {}
    # Of earlier stages only the rows are needed, which say how many there were.
    run.state = replace(state, of_method=of_method, scores=None, reports={}, diagnoses={})
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.save(key, run.state, model=run.model, optimizer=run.optimizer)
    return notes


_OTHER = "choose another --state for another network"


def grown_state(
    before: Mapping[str, Tensor], fresh: Mapping[str, Tensor], classes: int, model: str
) -> dict[str, Tensor]:
    """The state of a network with its values from before, and fresh ones for classes that are new.

    Which tensors have a row for each class is told by their shapes, in the network of before and in the fresh one.

    Args:
        before: The state dict of the network with so many ``classes``.
        fresh: That of a new network with the classes of now.
        classes: How many there were.
        model: The network's name.

    Returns:
        The state dict.

    Raises:
        InputError: If it is another network, or has no row for each class.
    """
    if differing := before.keys() ^ fresh.keys():
        raise InputError(f"model {model} is another network than at the stage before, by {min(differing)}; {_OTHER}")
    return {name: _grown(name, before[name], tensor, classes, model) for name, tensor in fresh.items()}


def _grown(name: str, old: Tensor, fresh: Tensor, classes: int, model: str) -> Tensor:
    """A tensor of the stage before, with fresh values for new classes; its rows for the known ones stay."""
    if old.shape == fresh.shape:
        return old
    differing = [dim for dim, (a, b) in enumerate(zip(old.shape, fresh.shape, strict=False)) if a != b]
    if old.dim() != fresh.dim() or len(differing) != 1 or old.shape[differing[0]] != classes:
        raise InputError(
            f"model {model}: {name} is {tuple(old.shape)} with {classes} classes and {tuple(fresh.shape)} now, so "
            f"it has no row for each class that could stay while new ones come; {_OTHER}"
        )
    grown = fresh.clone()
    grown[tuple(map(slice, old.shape))] = old.to(fresh.device)
    return grown


def _like(grown: Tensor | None, tensor: Tensor) -> Tensor:
    """A method's tensor for one of the network's that has grown: with the network's values for new classes."""
    if grown is None or grown.shape == tensor.shape or grown.dim() != tensor.dim():
        return tensor
    wide = grown.detach().cpu().to(tensor.dtype)
    wide[tuple(map(slice, tensor.shape))] = tensor
    return wide


def _load_moments(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Give a new optimizer the moments of an earlier one, with zeros for what has grown, and leave its settings."""
    own = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        place: {name: _padded(value, parameters[place]) for name, value in moments.items()}
        for place, moments in saved["state"].items()
        if isinstance(place, int)
    }
    optimizer.load_state_dict({**own, "state": {**saved["state"], **state}})


def _padded(value: Any, parameter: Tensor) -> Any:
    if not isinstance(value, Tensor) or value.dim() != parameter.dim() or value.shape == parameter.shape:
        return value
    wide = torch.zeros(parameter.shape, dtype=value.dtype)
    wide[tuple(map(slice, value.shape))] = value
    return wide
