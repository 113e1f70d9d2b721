"""Soft weight rescaling:  W <- c W,  c = (coef ||W_0|| + (1 - coef) ||W||) / ||W||  for each layer, after every update

Oh, Park, Han and Kim, Recovering Plasticity of Neural Networks via Soft Weight Rescaling, 2025 (arXiv 2507.04683);
formula and algorithm as in the version submitted to ICLR 2025 (OpenReview DnBjhWLVU1). A bias is multiplied by its
layer's c; behind the last norm layer by the product of the c from there on, so that a feed-forward network's output
is only multiplied by one number, and what it predicts stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from warmstart.batches import to_device
from warmstart.gradient_pass import gradient_pass
from warmstart.layers.norms import is_norm
from warmstart.layers.order import in_order_of_running
from warmstart.methods.method import Method, Stage, first_value
from warmstart.methods.report import Report
from warmstart.processes import multiply_, norm_of
from warmstart.setting import Range, Setting
from warmstart.undo import all_or_nothing

_ORDERS: WeakKeyDictionary[nn.Module, list[str]] = WeakKeyDictionary()
"""A network's layers in the order in which they run."""


@dataclass(frozen=True)
class SoftWeightRescaling(Method):
    """Go on, with each layer's norm drawn softly towards its first one after every update."""

    coef: Annotated[
        float,
        Setting(
            "lambda_f, of all layers, or of those up to the last norm layer where there is one",
            at_least=0,
            at_most=1,
            search=Range(1e-4, 1e-1),
        ),
    ] = 1e-2
    classifier_coef: Annotated[
        float,
        Setting(
            "lambda_c, of the layers behind the last norm layer; both defaults are the paper's for VGG-16's warm start",
            at_least=0,
            at_most=1,
            search=Range(1e-2, 0.5),
        ),
    ] = 0.1

    name: ClassVar[str] = "soft-weight-rescaling"
    summary: ClassVar[str] = "go on, while each layer's weights are scaled towards their first norm after every update"
    source: ClassVar[str] = "Oh et al. 2025, arXiv 2507.04683"
    year: ClassVar[int] = 2025
    acts: ClassVar[str] = "after each update"
    cost: ClassVar[str] = "a norm for each layer and update"
    limits: ClassVar[str] = "residual networks keep their function only about"
    page: ClassVar[str] = "regularising.md#soft-weight-rescaling"

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Change nothing, but check that the first weights are there: it acts on updates."""
        before, behind = _layers(model, stage)
        for name, layer in (*before, *behind):
            for key, weight in _trainable(layer, "weight"):
                first_value(stage.initial, f"{name}.{key}".lstrip("."), weight)
        classifier = behind[1:]
        where = "no norm layers" if not classifier else f"behind the last norm layer: {', '.join(dict(classifier))}"
        return Report(self.name, self.settings(), notes=("nothing changed: it acts after every update", where))

    @torch.no_grad()
    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """(W, b) <- (c W, C b) of each layer; C is c, and from the last norm layer on the product of all c."""
        before, behind = _layers(model, stage)
        product = torch.ones(())
        factors: dict[nn.Parameter, Tensor] = {}
        for i, (name, layer) in enumerate([*before, *behind]):
            from_last_norm = i - len(before)  # 0 is the last norm layer itself
            if from_last_norm == 0:
                product = torch.ones(())
            coef = self.classifier_coef if from_last_norm > 0 else self.coef
            biases = dict(_trainable(layer, "bias"))
            for key, weight in _trainable(layer, "weight"):
                if weight in factors:  # a tied one
                    continue
                c = _factor(weight, first_value(stage.initial, f"{name}.{key}".lstrip("."), weight), coef)
                product = c * product if from_last_norm > 0 or not behind else c
                factors[weight] = c
                bias = biases.get(key.replace("weight", "bias"))
                if bias is not None:
                    factors[bias] = product
        multiply_(factors)


def _factor(weight: Tensor, first: Tensor, coef: float) -> Tensor:
    """(coef ||W_0|| + (1 - coef) ||W||) / ||W||; 1 where W is 0."""
    norm = norm_of(weight)
    factor: Tensor = torch.where(norm > 0, coef * norm_of(first) / norm + (1 - coef), 1.0)
    return factor.to(weight.dtype)


def _trainable(layer: nn.Module, what: str) -> list[tuple[str, nn.Parameter]]:
    """The layer's own parameters that are called a weight, or a bias: those of attention and recurrent layers too."""
    own = layer.named_parameters(recurse=False)
    return [(key, parameter) for key, parameter in own if what in key and parameter.requires_grad]


def _layers(model: nn.Module, stage: Stage) -> tuple[list[tuple[str, nn.Module]], list[tuple[str, nn.Module]]]:
    """The layers in the order in which they run, which is looked for once in a network's life.

    Returns:
        Those before the last norm layer, and those from it on; without norm layers all lie before.
    """
    if model not in _ORDERS:
        batch = to_device(stage.batches(2)[-1], next(model.parameters()).device)
        with gradient_pass(model), torch.no_grad():
            _ORDERS[model] = in_order_of_running(model, lambda: stage.forward_loss(model, batch))
    layers = [(name, model.get_submodule(name)) for name in _ORDERS[model]]
    last = max((i for i, (_, layer) in enumerate(layers) if is_norm(layer)), default=len(layers))
    return layers[:last], layers[last:]
