"""One run over several processes: each trains on its share of every batch, and all hold the same weights.

A step stays one update on a whole batch: the mean loss of a share weighs as many examples as it has, gradients are
summed, and batch norm normalises by the whole batch. So a run takes the steps that it takes in one process, and stops
where it stops there, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from warmstart.launch import launched_processes
from warmstart.layers.norms import batch_norms
from warmstart.processes import Team


@cache
def launched_team(device: torch.device) -> Team:
    """The processes that `torchrun` or `accelerate launch` started together, to train on this; else this one."""
    if launched_processes() == 1:
        return Team()
    from accelerate import PartialState

    state = PartialState(cpu=device.type != "cuda")
    return Team(state.num_processes, dist.group.WORLD, state.device, rank=state.process_index)


def end_together(team: Team) -> None:
    """Let the processes of a launched team end, once all have come here.

    One that ends while another still reads from it, or whose threads of communication are running, may abort.
    """
    if team.size > 1:
        team.gather(0.0)
        dist.destroy_process_group()


class Shares:
    """This process's share of each batch, and the sums that make one update of all shares.

    Attributes:
        weight: What the share of the batch under way weighs in it.
        examples: How many examples that batch has, over all processes.
    """

    def __init__(self, model: nn.Module, team: Team) -> None:
        """Begin a stage with the first process's weights everywhere."""
        self.weight, self.examples = 1.0, 0
        self._model, self._team = model, team
        if team.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0, group=team.group)

    def of(self, batch: slice) -> slice:
        """Take this process's share of a batch; of fewer examples than processes everyone takes all."""
        self.examples, size = batch.stop - batch.start, self._team.size
        if self.examples < size:
            self.weight = 1 / size
            return batch
        start, stop = (batch.start + self.examples * i // size for i in (self._team.rank, self._team.rank + 1))
        self.weight = (stop - start) / self.examples
        return slice(start, stop)

    def sum_gradients(self) -> None:
        """Make the gradients of weighted shares those of the whole batch."""
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        self._team.sum_([together])
        for gradient, part in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum_measured(self, losses: Tensor, accuracies: Tensor, batches: Sequence[slice]) -> None:
        """Add up, in place, what the processes have measured on their shares of these batches.

        The sums of accuracies are made multiples of one example, so that all right is exactly 1.
        """
        if self._team.size > 1:
            self._team.sum_([losses, accuracies])
            sizes = accuracies.new_tensor([batch.stop - batch.start for batch in batches])
            accuracies.mul_(sizes).round_().div_(sizes)

    @contextmanager
    def whole_batch_norm(self) -> Iterator[None]:
        """Let batch norm in train mode see whole batches, not shares.

        `SyncBatchNorm` does so on GPUs alone, and counts examples that several processes share twice.

        Yields:
            Nothing; the layers are as before at the end.
        """
        layers = batch_norms(self._model) if self._team.size > 1 else []
        try:
            for layer in layers:
                vars(layer)["forward"] = partial(self._batch_norm, layer)
            yield
        finally:
            for layer in layers:
                del vars(layer)["forward"]

    def _batch_norm(self, layer: Any, x: Tensor) -> Tensor:
        """Ioffe and Szegedy 2015, algorithm 1, over all processes: x (share, channels, *positions)."""
        if not layer.training:
            return type(layer).forward(layer, x)  # type: ignore[no-any-return]  # nn.Module
        over = (0, *range(2, x.dim()))
        channel = (1, -1, *(1 for _ in over[1:]))
        values = x.float()
        mean = self._sum(values.mean(over) * self.weight)
        centred = values - mean.view(channel)
        variance = self._sum(centred.square().mean(over) * self.weight)
        if layer.track_running_stats:
            layer.num_batches_tracked += 1
            rate = 1 / layer.num_batches_tracked.item() if layer.momentum is None else layer.momentum
            count = self.examples * x[0, 0].numel()
            layer.running_mean.lerp_(mean.detach(), rate)
            layer.running_var.lerp_(variance.detach() * (count / max(1, count - 1)), rate)
        out = centred * (variance + layer.eps).rsqrt().view(channel)
        if layer.affine:
            out = out * layer.weight.view(channel) + layer.bias.view(channel)
        result: Tensor = out.to(x.dtype)
        return result

    def _sum(self, tensor: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(tensor, self._team)  # type: ignore[no-untyped-call]  # torch's
        return total


class _Sum(torch.autograd.Function):
    """A sum over processes; each process's gradient is what all of them do with it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, team: Team) -> Tensor:
        ctx.team = team
        total = tensor.clone()
        team.sum_([total])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        ctx.team.sum_([total])
        return total, None
