"""What DASH, Shrink & Perturb, FIRE and uniform shrinking have in common: four things that may happen to weights.

When data arrives each weight matrix becomes  W <- s ||W|| M / ||M||,  where M has the directions of W or of DASH's
outcome, singular values raised to 1 - p, and noise:

- scale s: how long it is afterwards, which behind norm layers is the effective learning rate;
- spectrum p: 0 keeps the proportions of its singular values, 1 makes an isometry of it;
- selectivity: whether DASH's scales, neuron by neuron, decide the proportions;
- noise: in units of a weight's root mean square.

    PYTHONPATH=docs/evidence warmstart compare --methods 'cold,family:Family[spectrum=1],family:Family[noise=0.3]'
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

import warmstart as ws
from warmstart.setting import Range, Setting


@dataclass(frozen=True)
class Family(ws.Method):
    """Scale, spectrum, selectivity and noise of all convolutions and linear layers whenever new data arrives."""

    scale: Annotated[
        float, Setting("The length of a layer's weights afterwards, in units of relative", search=Range(0.05, 0.8))
    ] = 0.3
    relative: Literal["now", "initial"] = "now"
    """Of their length before, or of that of the run's first weights."""
    head: float = -1.0
    """Another scale for the last layer; -1: the same."""
    body: float = -1.0
    """Another scale for all other layers; -1: the same."""
    norm: Literal["set", "dash"] = "set"
    """dash: their length is what DASH leaves, and ``scale`` means nothing."""
    select: float = 0.0
    """1: DASH's scales decide the proportions within a layer; 0: they are kept."""
    spectrum: float = 0.0
    """Singular values are raised to 1 - spectrum."""
    matrix: Literal["position", "filter"] = "position"
    """What is a matrix: (outputs, inputs) at each position of a kernel, as in FIRE, or (outputs, all that enters)."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise, in units of the layer's root mean square."""

    name: ClassVar[str] = "family"
    summary: ClassVar[str] = "scale, spectrum, selectivity and noise of the weights"
    source: ClassVar[str] = "docs/evidence/one-family.md"

    def on_new_data(self, model: nn.Module, stage: ws.Stage) -> ws.Report:
        """Change every layer; biases are scaled with their weights."""
        kinds = (nn.Conv2d, nn.Linear)
        layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
        before = {name: layer.weight.detach().clone() for name, layer in layers}
        biases = {name: layer.bias.detach().clone() for name, layer in layers if layer.bias is not None}
        if self.select or self.norm == "dash":
            ws.dash_(
                model,
                stage.batches(None),
                forward_loss=stage.forward_loss,
                micro_batch_size=stage.micro_batch_size,
            )
        with torch.no_grad():
            for name, layer in layers:
                own = self.head if name == layers[-1][0] else self.body
                scale = self.scale if own < 0 else own
                length = scale * before[name].norm()
                if self.norm == "dash":
                    length = layer.weight.norm()
                elif self.relative == "initial":
                    length = scale * stage.initial[f"{name}.weight"].to(layer.weight).norm()
                new = self._spectral(layer.weight.clone() if self.select else before[name])
                if self.noise:
                    size = new.norm() / new.numel() ** 0.5
                    new = new + self.noise * size * torch.randn(new.shape, generator=stage.generator)
                layer.weight.copy_(new * (length / new.norm().clamp_min(1e-30)))
                if layer.bias is not None and self.norm != "dash":
                    layer.bias.copy_(scale * biases[name])
        return ws.Report(self.name, self.settings(), notes=(f"{len(layers)} layers",))

    def _spectral(self, weight: Tensor) -> Tensor:
        """U S^(1 - p) V^T of each of the weight's matrices U S V^T."""
        if self.spectrum == 0:
            return weight
        by_position = weight.dim() == 4 and self.matrix == "position"
        matrices = weight.permute(2, 3, 0, 1) if by_position else weight.flatten(1)
        u, s, vt = torch.linalg.svd(matrices.double(), full_matrices=False)
        top = s.amax(-1, keepdim=True).clamp_min(1e-30)
        powered = torch.where(s > 1e-6 * top, (s / top) ** (1 - self.spectrum), 0.0)
        if by_position and self.spectrum < 1:
            powered = powered * top  # so that positions keep their proportions
        new: Tensor = ((u * powered[..., None, :]) @ vt).to(weight.dtype)
        return new.permute(2, 3, 0, 1) if by_position else new.reshape(weight.shape)
