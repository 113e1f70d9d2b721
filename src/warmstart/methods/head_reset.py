"""Head reset: the last layer is drawn anew, all others go on.

As in the code of Shin et al., NeurIPS 2024 (arXiv 2410.23495): PyTorch's default initialisation, and for VGG the
whole classifier, here ``head="classifier"``. Lee et al. (Hare & Tortoise, 2024) return to the first weights
instead, Dohare et al. (2024) use Kaiming's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from warmstart.batches import to_device
from warmstart.errors import InputError, nearest
from warmstart.gradient_ema import gradient_pass
from warmstart.methods.method import Method, Stage
from warmstart.methods.report import LayerReport, Report
from warmstart.neurons import output_layer


@dataclass(frozen=True)
class HeadReset(Method):
    """Redraw the head whenever new data arrives; the optimizer and its state go on."""

    head: str | None = None
    """The head's name in the network; None finds the layer that feeds the output."""

    name: ClassVar[str] = "head-reset"
    summary: ClassVar[str] = "draw the last layer anew (PyTorch's default), go on with all others"
    source: ClassVar[str] = "code of Shin et al., NeurIPS 2024, arXiv 2410.23495"

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Find the head, unless named, and draw it anew."""
        return head_reset_(model, self.head or _find_head(model, stage), generator=stage.generator)


def _find_head(model: nn.Module, stage: Stage) -> str:
    batch = to_device(stage.batches(2)[-1], next(model.parameters()).device)
    with gradient_pass(model):
        return output_layer(model, stage.forward_loss(model, batch))[0]


@torch.no_grad()
def head_reset_(model: nn.Module, head: str, *, generator: torch.Generator | None = None) -> Report:
    """Draw a network's head anew by its own ``reset_parameters``, in place.

    Args:
        model: The network.
        head: Name of the layer, or of a module all of whose layers are redrawn, as in ``model.named_modules()``.
        generator: Source of randomness; PyTorch's default one if not given.

    Returns:
        Which layers were drawn anew.

    Raises:
        InputError: If there is no such module or nothing in it can be redrawn; nothing is changed then.
    """
    modules = dict(model.named_modules())
    if head not in modules:
        raise InputError(f"the model has no module '{head}'{nearest(head, [name for name in modules if name])}")
    layers = [
        (name, layer) for name, layer in modules[head].named_modules(prefix=head) if hasattr(layer, "reset_parameters")
    ]
    if not layers:
        raise InputError(f"'{head}' is a {type(modules[head]).__name__} without layers that can be drawn anew")
    devices = {parameter.device for parameter in modules[head].parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=devices, enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for _, layer in layers:
            layer.reset_parameters()
    rows = tuple(LayerReport(name, type(layer).__name__, _rows(layer), 0.0, 0.0, 1.0) for name, layer in layers)
    return Report("head-reset", {"head": head}, rows, notes=("optimizer state kept",))


def _rows(layer: nn.Module) -> int:
    return max((len(parameter) for parameter in layer.parameters(recurse=False) if parameter.dim()), default=0)
