"""Normalize-and-Project:  norm layers before every activation,  and  W <- ||W_0|| W / ||W||  after every update

Lyle, Zheng, Khetarpal, Martens, van Hasselt, Pascanu and Dabney, Normalization and Effective Learning Rates in
Reinforcement Learning, NeurIPS 2024 (arXiv 2407.01800). Behind a norm layer a weight's length does not change the
function, only its effective learning rate, which the projection keeps. The paper's abstract and descriptions by others
were read, not its appendix: what it does about the gains of norm layers and the output layer could not be verified.
Here both are left to the optimizer; the norm layers that are put in have no gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn

from warmstart.errors import InputError
from warmstart.layers.activations import normalise_activations_
from warmstart.layers.matrices import rows_of
from warmstart.layers.neurons import each_parameter
from warmstart.layers.norms import has_norm
from warmstart.methods.heads import head_of, require_head
from warmstart.methods.method import Method, Stage, first_value
from warmstart.methods.report import Report
from warmstart.processes import multiply_, norm_of
from warmstart.setting import Setting
from warmstart.undo import all_or_nothing
from warmstart.wording import counted


@dataclass(frozen=True)
class NormalizeAndProject(Method):
    """Go on, with normalised activations and the norm of each hidden weight held at its first value."""

    head: Annotated[
        str | None,
        Setting(
            "The name of the output layer, which is not projected; None finds the layer that feeds the output",
            example="a layer",
        ),
    ] = None

    name: ClassVar[str] = "normalize-and-project"
    summary: ClassVar[str] = "norm layers before activations, hidden weights projected to their first norm"
    source: ClassVar[str] = "Lyle et al., NeurIPS 2024, arXiv 2407.01800"
    year: ClassVar[int] = 2024
    acts: ClassVar[str] = "before training, and after each update"
    cost: ClassVar[str] = "a norm for each layer and update, perhaps new norm layers"
    limits: ClassVar[str] = "where a network must stay as it was made"
    page: ClassVar[str] = "regularising.md#normalize-and-project"

    def prepare(self, model: nn.Module) -> None:
        """Put a layer norm without parameters before each activation that has no norm layer before it."""
        if self.head is not None:
            require_head(model, self.head)
        normalise_activations_(model)
        if not has_norm(model):
            raise InputError(
                "normalize-and-project finds no activation that is a module (nn.ReLU), and no norm layer: put one "
                "before each activation yourself"
            )

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Change nothing, but check that the first weights are there: it acts on updates."""
        hidden = self._hidden(model, stage)
        for name, weight in hidden.items():
            first_value(stage.initial, name, weight)
        note = f"nothing changed: {counted(len(hidden), 'hidden weight')} are projected after every update"
        return Report(self.name, self.settings(), notes=(note,))

    @torch.no_grad()
    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """W <- ||W_0|| W / ||W||; a weight that is 0 stays."""
        factors = {}
        for name, weight in self._hidden(model, stage).items():
            first, norm = first_value(stage.initial, name, weight), norm_of(weight)
            factors[weight] = torch.where(norm > 0, norm_of(first) / norm, 1.0)
        multiply_(factors)

    def _hidden(self, model: nn.Module, stage: Stage) -> dict[str, nn.Parameter]:
        """The trainable weights of linear, convolutional and attention layers, but for the head's."""
        head = self.head or head_of(model, stage)
        hidden: dict[str, nn.Parameter] = {}
        for name, layer, key, weight in each_parameter(model):
            of_head = f"{name}.".startswith(f"{head}.")
            if weight.requires_grad and not of_head and rows_of(layer, key, weight) is not None:
                hidden[name] = weight
        return hidden
