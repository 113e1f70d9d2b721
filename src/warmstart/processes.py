"""The processes that share each batch: sums over them, and errors that all of them raise together.

Two layouts are supported. *Replicated* (DistributedDataParallel): every process holds all weights; each averages its
own gradients, and one sum at the end adds them up. *Sharded* (FSDP2, `fully_shard`, also with replicas): every process
holds a part of each weight; the backward pass adds gradients up, and full weights never come together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """The processes that each hold a share of every batch; a single process is a team of one."""

    size: int = 1
    group: Any = None
    """The process group of torch.distributed; None alone."""
    device: torch.device | str = "cpu"
    """The device of tensors that are communicated."""
    sharded: bool = False
    """Whether the backward pass itself averages gradients over the processes."""
    rank: int = 0
    """This process's number in the team, from 0."""

    def gather(self, *numbers: float) -> list[list[float]]:
        """Every process's numbers, in every process; all give equally many."""
        if self.size == 1:
            return [list(numbers)]
        mine = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        everyones = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyones, mine, group=self.group)
        return [theirs.tolist() for theirs in everyones]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors over the processes, in place; each gives equally many of the same shapes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self.group)

    def broadcast(self, value: T) -> T:
        """The first process's value, which must be picklable, in every process."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, self._first, group=self.group)
            value = box[0]
        return value

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, on `device`, in every process; alone or sharded already, the tensor itself."""
        if self.size == 1 or is_sharded(tensor):
            return tensor
        copy = tensor.detach().to(self.device, copy=True).contiguous()
        dist.broadcast(copy, self._first, group=self.group)
        return copy

    def on_first(self, work: Callable[[], T]) -> T:
        """Do something in the first process only, and give every process its result, which must be picklable.

        Returns:
            The result.

        Raises:
            InputError: In the other processes, if it failed in the first, which raises the error itself.
        """
        if self.size == 1:
            return work()
        result, failure = None, None
        if self.rank == 0:
            try:
                result = work()
            except Exception as error:
                failure = error
        result, failed = self.broadcast((result, failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise InputError(f"process 0 of {self.size} failed before the work began (see its own error)")
        return cast("T", result)

    @property
    def _first(self) -> int:
        """The first process's global rank, which collectives of torch.distributed expect."""
        return 0 if self.group is None else dist.get_global_rank(self.group, 0)

    def attempt(self, work: Callable[[], T]) -> T:
        """Do something that may fail in some process, and raise in all of them if so, so that none keeps waiting.

        ``work`` must not itself communicate with the other processes.

        Returns:
            Its result.

        Raises:
            InputError: If it failed in another process. If it failed in this one, its own error.
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
            raise InputError(f"process {failed[0]} of {self.size} failed (see its own error); nothing has changed")
        return cast("T", result)


def team_of(model: nn.Module) -> tuple[nn.Module, Team]:
    """The processes that train a model together, by DistributedDataParallel or ``fully_shard``.

    Returns:
        The network without what `unwrapped` takes off, and its team.

    Raises:
        InputError: If it is no network, or its weights are laid out in an unsupported way (tensor parallel, FSDP1).
    """
    require_module(model)
    for wrapper, _ in _wrappers(model):
        if isinstance(wrapper, DistributedDataParallel):
            ranks = wrapper.process_group
            device = next(wrapper.parameters()).device
            team = Team(dist.get_world_size(ranks), ranks, device, rank=dist.get_rank(ranks))
            return unwrapped(wrapper), team
    model = unwrapped(model)
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
    """Give an FSDP2 model its sharded parameters back after an interrupted pass; other networks stay as they are."""
    if dist.is_available() and dist.is_initialized():
        from torch.distributed.fsdp import FSDPModule

        for layer in model.modules():
            if isinstance(layer, FSDPModule):
                layer.reshard()


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, replicated ones included."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor, as a view; any other tensor itself."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]  # a DTensor
    return part


def laid_out_as(like: Tensor, tensor: Tensor) -> Tensor:
    """A tensor on the device, and with the sharding, of a parameter of its shape; nothing is communicated.

    It is whole and the same on every process, or sharded like the parameter already.

    Returns:
        The tensor; of a whole one, for a sharded parameter, this process's part as a DTensor.
    """
    if not is_sharded(like) or is_sharded(tensor):
        return tensor.to(like.device)
    from torch.distributed.tensor import DTensor, Replicate

    mesh: Any = like.device_mesh  # type: ignore[attr-defined]  # a DTensor
    whole = DTensor.from_local(tensor.to(local(like).device), mesh, [Replicate()] * mesh.ndim, run_check=False)
    return whole.redistribute(placements=like.placements)  # type: ignore[attr-defined]


def _wrappers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """What is wrapped around a network, the outermost first, each with the name of what is inside it."""
    while True:
        if isinstance(model, (DistributedDataParallel, nn.DataParallel)):
            inside = "module"
        elif type(model).__name__ == "OptimizedModule":  # of torch.compile, whose class is slow to import
            inside = "_orig_mod"
        else:
            return
        yield model, inside
        model = getattr(model, inside)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network without DistributedDataParallel, DataParallel and torch.compile, as in names of its parameters."""
    for wrapper, inside in _wrappers(model):
        model = getattr(wrapper, inside)
    return model


def name_inside(model: nn.Module, name: str) -> str:
    """A layer's or parameter's name in the network that `unwrapped` gives, from one with or without prefixes."""
    for _, inside in _wrappers(model):
        name = name.removeprefix(f"{inside}.")
    return name


def names_inside(model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors by their names as of `name_inside`."""
    if unwrapped(model) is model:
        return tensors
    return {name_inside(model, name): tensor for name, tensor in tensors.items()}


def on_inner_module(team: Team) -> tuple[str, ...]:
    """A warning where several processes run but a network does not say which of them train it together."""
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if team.size > 1 or processes == 1:
        return ()
    return (
        f"called on the inner module in {processes} processes, whose weights may now differ: pass the "
        "DistributedDataParallel wrapper",
    )


@dataclass(frozen=True)
class Shard:
    """Which dimension of a parameter is sharded, and over which processes."""

    dim: int | None = None
    """None if this process holds all of it."""
    group: Any = None

    def reduce_(self, tensor: Tensor, operation: Any = None) -> Tensor:
        """Reduce a tensor over the processes that hold the other parts, in place; the sum without an ``operation``."""
        if self.dim is not None:
            dist.all_reduce(tensor, op=operation or dist.ReduceOp.SUM, group=self.group)
        return tensor


def shard_of(tensor: Tensor) -> Shard:
    """How a tensor is sharded, in a layout that `team_of` supports."""
    if not is_sharded(tensor):
        return Shard()
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]  # a DTensor
    for axis, placement in enumerate(placements):
        if not placement.is_replicate():
            return Shard(placement.dim, mesh.get_group(axis))
    return Shard()


@torch.no_grad()
def multiply_(factors: Mapping[nn.Parameter, Tensor]) -> None:
    """Multiply parameters, sharded or not, by a number each: in one call, which nothing interrupts halfway."""
    if factors:
        parts = [local(parameter) for parameter in factors]
        numbers = [factor.to(part.dtype) for part, factor in zip(parts, factors.values(), strict=True)]
        torch._foreach_mul_(parts, numbers)


def norm_of(tensor: Tensor) -> Tensor:
    """The Frobenius norm, a plain number on its device, also of a tensor that is sharded over processes."""
    part = local(tensor).detach()
    squares = part.to(torch.promote_types(part.dtype, torch.float32)).square().sum()
    return shard_of(tensor).reduce_(squares).sqrt()
