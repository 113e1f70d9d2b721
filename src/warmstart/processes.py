"""The processes that share each batch: agreement on what is read, and sums over them.

Two layouts are known. *Replicated* (DistributedDataParallel): every process holds all weights; each averages its own
gradients, and one sum at the end adds them up. *Sharded* (FSDP2, `fully_shard`, also with replicas): every process
holds a part of each weight; the backward pass adds gradients up, and full weights never come together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from warmstart.errors import InputError
from warmstart.network import require_module

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes that each hold a share of every batch; alone, it is a team of one."""

    size: int = 1
    group: Any = None
    """The process group of torch.distributed; None alone."""
    device: torch.device | str = "cpu"
    """Where numbers are exchanged."""
    sharded: bool = False
    """Whether the backward pass itself averages gradients over the processes."""
    rank: int = 0
    """Which of them this process is, from 0."""

    def gather(self, *numbers: float) -> list[list[float]]:
        """Tell everyone some numbers.

        Args:
            numbers: This process's; all processes give as many.

        Returns:
            Each process's numbers.
        """
        if self.size == 1:
            return [list(numbers)]
        mine = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        everyones = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyones, mine, group=self.group)
        return [theirs.tolist() for theirs in everyones]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors up over the processes, in place.

        Args:
            tensors: On every process as many, of the same shapes.
        """
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self.group)

    def tell(self, value: T) -> T:
        """Let all processes have what the first one has.

        Args:
            value: Anything that can be pickled; only the first process's counts.

        Returns:
            The first process's value.
        """
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, self._first, group=self.group)
            value = box[0]
        return value

    def firsts(self, tensor: Tensor) -> Tensor:
        """Let all processes have the tensor that the first one has.

        Args:
            tensor: On every process of the same shape; not changed.

        Returns:
            The first process's, on `device`; alone, and where it is sharded already, the tensor itself.
        """
        if self.size == 1 or is_sharded(tensor):
            return tensor
        copy = tensor.detach().to(self.device, copy=True).contiguous()
        dist.broadcast(copy, self._first, group=self.group)
        return copy

    def first(self, work: Callable[[], T]) -> T:
        """Let the first process do something alone, and tell all what came of it: its result, or its error.

        Args:
            work: What to do; called in the first process only. What it returns can be pickled.

        Returns:
            What it returned, in every process.

        Raises:
            InputError: In the others, where it failed in the first. There the failure itself is raised.
        """
        if self.size == 1:
            return work()
        result, failure = None, None
        if self.rank == 0:
            try:
                result = work()
            except Exception as error:
                failure = error
        result, failed = self.tell((result, failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise InputError(f"process 0 of {self.size} could not begin (its own error says why)")
        return cast("T", result)

    @property
    def _first(self) -> int:
        """The first process by its number among all that there are, as collectives want it."""
        return 0 if self.group is None else dist.get_global_rank(self.group, 0)

    def attempt(self, work: Callable[[], T]) -> T:
        """Do something that may fail on some process, and fail on all of them if so: none waits for another.

        Args:
            work: What to do; it must not exchange anything itself that the others wait for.

        Returns:
            What it returned.

        Raises:
            InputError: Where it failed elsewhere. Here the failure itself is raised.
        """
        if self.size == 1:
            return work()
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        failed = [i for i, (flag,) in enumerate(self.gather(failure is not None)) if flag]
        if failure is not None:
            raise failure
        if failed:
            raise InputError(
                f"process {failed[0]} of {self.size} refused its share (its own error says why); nothing has changed"
            )
        return cast("T", result)


def team_of(model: nn.Module) -> tuple[nn.Module, Team]:
    """Find the processes that train a model together.

    Args:
        model: Any network; wrapped in DistributedDataParallel or sharded by ``fully_shard``, its processes take part.

    Returns:
        The network without DistributedDataParallel around it, and its team.

    Raises:
        InputError: If it is no network, or its weights are laid out in a way that is not supported (tensor parallel,
            FSDP1).
    """
    require_module(model)
    if isinstance(model, DistributedDataParallel):
        ranks = model.process_group
        device = next(model.parameters()).device
        return model.module, Team(dist.get_world_size(ranks), ranks, device, rank=dist.get_rank(ranks))
    if type(model).__name__ == "FullyShardedDataParallel":
        raise InputError("FSDP1 flattens weights, so neurons cannot be told apart: use FSDP2, fully_shard(model)")
    sharded: list[tuple[str, Any]] = [(name, p) for name, p in model.named_parameters() if is_sharded(p)]
    if not sharded:
        return model, Team()
    from torch.distributed.fsdp import FSDPModule

    name, first = sharded[0]
    if not any(isinstance(layer, FSDPModule) for layer in model.modules()):
        raise InputError(f"{name} is laid out in a tensor-parallel way: apply the method before parallelize_module")
    meshes = {p.device_mesh for _, p in sharded}
    for name, parameter in sharded:
        shards = [placement for placement in parameter.placements if not placement.is_replicate()]
        if len(meshes) > 1 or len(shards) > 1 or any(type(placement).__name__ != "Shard" for placement in shards):
            raise InputError(f"{name} is sharded as {parameter.placements}: only FSDP2 and HSDP layouts are supported")
    mesh = first.device_mesh
    if mesh.ndim > 1 and mesh.size() != dist.get_world_size():
        raise InputError(f"the mesh of {name} has {mesh.size()} of {dist.get_world_size()} processes: use all of them")
    group: Any = mesh.get_group() if mesh.ndim == 1 else dist.group.WORLD
    return model, Team(mesh.size(), group, local(first).device, sharded=True, rank=dist.get_rank(group))


def reshard(model: nn.Module) -> None:
    """Give an FSDP2 model its sharded parameters back, wherever a forward or backward pass was left.

    Args:
        model: Any network; only FSDP2's layers take note.
    """
    if dist.is_available() and dist.is_initialized():
        from torch.distributed.fsdp import FSDPModule

        for layer in model.modules():
            if isinstance(layer, FSDPModule):
                layer.reshard()


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which each process holds a part.

    Args:
        tensor: Any tensor.

    Returns:
        True for a DTensor, replicated ones included.
    """
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor.

    Args:
        tensor: Any tensor.

    Returns:
        A view of the part; the tensor itself where it is not a DTensor.
    """
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]  # a DTensor
    return part


def laid_out_as(like: Tensor, tensor: Tensor) -> Tensor:
    """A tensor where another one is, and spread over processes as that is.

    Args:
        like: A parameter.
        tensor: Of its shape, whole and the same on every process, or spread like it already.

    Returns:
        The tensor, or of a whole one this process's part, as a DTensor; no process asks another for anything.
    """
    if not is_sharded(like) or is_sharded(tensor):
        return tensor.to(like.device)
    from torch.distributed.tensor import DTensor, Replicate

    mesh: Any = like.device_mesh  # type: ignore[attr-defined]  # a DTensor
    whole = DTensor.from_local(tensor.to(local(like).device), mesh, [Replicate()] * mesh.ndim, run_check=False)
    return whole.redistribute(placements=like.placements)  # type: ignore[attr-defined]


def unwrapped(model: nn.Module) -> nn.Module:
    """The network without DistributedDataParallel around it.

    Args:
        model: Any network.

    Returns:
        The network itself, of which names of layers and parameters speak.
    """
    return model.module if isinstance(model, DistributedDataParallel) else model


def names_inside(model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors by the names that they have in the network inside DistributedDataParallel.

    Args:
        model: Any network, wrapped or not.
        tensors: Some by name, such as a copy of a ``state_dict``, with or without the wrapper's prefix.

    Returns:
        The same tensors, by the inner names.
    """
    if not isinstance(model, DistributedDataParallel):
        return tensors
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Shard:
    """Which dimension of a parameter is spread over which processes."""

    dim: int | None = None
    """None where this process holds all of it."""
    group: Any = None

    def reduce_(self, tensor: Tensor, operation: Any = None) -> Tensor:
        """Combine a tensor over the processes that hold the other parts, in place.

        Args:
            tensor: On each process of the same shape.
            operation: One of ``dist.ReduceOp``; the sum if not given.

        Returns:
            The same tensor.
        """
        if self.dim is not None:
            dist.all_reduce(tensor, op=operation or dist.ReduceOp.SUM, group=self.group)
        return tensor


def shard_of(tensor: Tensor) -> Shard:
    """How a tensor is spread.

    Args:
        tensor: Any tensor, of a layout that `team_of` admits.

    Returns:
        Dimension and processes; neither for a tensor that is all here.
    """
    if not is_sharded(tensor):
        return Shard()
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]  # a DTensor
    for axis, placement in enumerate(placements):
        if not placement.is_replicate():
            return Shard(placement.dim, mesh.get_group(axis))
    return Shard()
