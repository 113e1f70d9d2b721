"""Head reset: the last layer is drawn anew, all others go on.

As in the code of Shin et al., NeurIPS 2024 (arXiv 2410.23495): PyTorch's default initialisation, and for VGG the
whole classifier, here ``head="classifier"``. Lee et al. (Hare & Tortoise, 2024) return to the first weights
instead, Dohare et al. (2024) use Kaiming's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from warmstart.errors import InputError
from warmstart.methods.heads import find_head, require_head, require_head_name
from warmstart.methods.method import Method, Stage, forget_
from warmstart.methods.report import NumbersReport, Report
from warmstart.network import require_generator, require_optimizer, require_writable, tensors_of
from warmstart.processes import Team, is_sharded, laid_out_as, local, name_inside, on_inner_module, team_of
from warmstart.setting import Setting
from warmstart.undo import afterwards, all_or_nothing, keep, keep_random_state


@dataclass(frozen=True)
class HeadReset(Method):
    """Redraw the head whenever new data arrives; the optimizer and its state go on."""

    head: Annotated[
        str | None, Setting("The head's name; None finds the layer that feeds the output", example="a layer")
    ] = None

    name: ClassVar[str] = "head-reset"
    summary: ClassVar[str] = "draw the last layer anew (PyTorch's default), go on with all others"
    source: ClassVar[str] = "code of Shin et al., NeurIPS 2024, arXiv 2410.23495"
    acts: ClassVar[str] = "when data arrives"
    cost: ClassVar[str] = "nothing"
    limits: ClassVar[str] = "networks whose last layer cannot be told: name it with head"
    page: ClassVar[str] = "shrinking.md#head-reset"

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Find the head, unless named, and draw it anew."""
        return head_reset_(model, self.head or find_head(model, stage), generator=stage.generator)


@all_or_nothing
@torch.no_grad()
def head_reset_(
    model: nn.Module,
    head: str,
    *,
    generator: torch.Generator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Report:
    """Draw a network's head anew by its own ``reset_parameters``, in place.

    Args:
        model: The network; under DistributedDataParallel and FSDP2 the first process's draw decides for all.
        head: Name of the layer, or of a module all of whose layers are redrawn, as in ``model.named_modules()``.
        generator: Source of randomness; PyTorch's default one if not given.
        optimizer: The optimizer that goes on, to forget its moments of the head; they are kept if not given.

    Returns:
        How many weights of each parameter were drawn anew.

    Raises:
        InputError: If there is no such module, nothing in it can be redrawn, or the optimizer does not hold it; nothing
            is changed then.
    """
    require_generator(generator)
    if optimizer is not None:
        require_optimizer(optimizer)
    require_head_name(head)
    head = name_inside(model, head)
    model, team = team_of(model)
    module = require_head(model, head)
    layers = [(name, layer) for name, layer in module.named_modules(prefix=head) if hasattr(layer, "reset_parameters")]
    if not layers:
        raise InputError(f"'{head}' is a {type(module).__name__} without layers that can be drawn anew")
    tensors = {f"{name}.{key}": tensor for name, layer in layers for key, tensor in tensors_of(layer).items()}
    if optimizer is not None:
        held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        if held.isdisjoint(module.parameters()):
            raise InputError(f"optimizer holds no parameter of '{head}': pass the one that trains this model")
    team.attempt(partial(require_writable, tensors))
    keep(tensors.values())
    devices = {local(parameter).device for parameter in module.parameters() if parameter.is_cuda}
    keep_random_state(generator, devices)
    with torch.random.fork_rng(devices=devices, enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for _, layer in layers:
            _redraw_(layer, team)
    rows = tuple(
        NumbersReport(parameter_name, type(layer).__name__, {"drawn anew": parameter.numel()})
        for name, layer in layers
        for parameter_name, parameter in layer.named_parameters(name, recurse=False)
    )
    if optimizer is not None:
        forget_(optimizer, [parameter for _, layer in layers for parameter in layer.parameters(recurse=False)])
    state = "optimizer state kept" if optimizer is None else "optimizer state of the head reset"
    return Report("head-reset", {"head": head}, rows, notes=(state,), warnings=on_inner_module(team))


def _redraw_(layer: Any, team: Team) -> None:
    """Draw a whole layer anew, and copy the first process's draw, or this process's shard of it."""
    sharded = {name: parameter for name, parameter in layer.named_parameters(recurse=False) if is_sharded(parameter)}

    def put_back() -> None:
        for name, parameter in sharded.items():
            setattr(layer, name, parameter)

    with afterwards(put_back):
        for name, parameter in sharded.items():  # drawn part by part, all parts may be alike
            whole = torch.empty(parameter.shape, dtype=parameter.dtype, device=local(parameter).device)
            setattr(layer, name, nn.Parameter(whole))
        layer.reset_parameters()
        drawn = {name: team.broadcast_tensor(tensor) for name, tensor in tensors_of(layer).items()}
    for name, tensor in tensors_of(layer).items():
        tensor.copy_(laid_out_as(tensor, drawn[name]))
