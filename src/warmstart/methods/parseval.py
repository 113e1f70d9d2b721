"""Parseval regularisation:  loss + coef sum ||W W^T - s I||_F^2,  gradient + 4 coef (W W^T - s I) W

Chung, Cherif, Meger and Precup, Parseval Regularization for Continual Reinforcement Learning, NeurIPS 2024
(arXiv 2412.07224). `VARIANTS` names the two definitions in circulation, both as their authors' code has them. The
default is FIRE's, the one that has been used and tuned for warm starts, on networks with convolutions and norm layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from warmstart.errors import InputError, require
from warmstart.layers.matrices import rows_of
from warmstart.layers.neurons import each_parameter
from warmstart.layers.norms import is_norm
from warmstart.methods.heads import head_of, require_head
from warmstart.methods.method import Method, Stage
from warmstart.methods.report import Report
from warmstart.network import require_values, require_writable
from warmstart.processes import is_sharded, team_of
from warmstart.setting import Range, Setting
from warmstart.undo import all_or_nothing, keep, on_failure
from warmstart.wording import counted


@dataclass(frozen=True)
class Variant:
    """One definition of Parseval regularisation."""

    scale: float
    """s, to which each row's squared length is pulled."""
    hidden_layers: bool
    """True: all layers but the one that feeds the output, with coef (64 / width)^2, where the width is W's rows.
    False: all layers with coef, and coef sum ||g^2 - s||^2 for the gains g of norm layers."""
    source: str


WIDTH = 64
"""The width at which Chung et al. tuned the coefficient."""

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "fire": Variant(1.0, hidden_layers=False, source="code of Han et al., ICLR 2026, arXiv 2602.08040"),
        "chung": Variant(2.0, hidden_layers=True, source="code of Chung et al. 2024: s = gain^2, sqrt(2) for ReLU"),
    }
)


@dataclass(frozen=True)
class Parseval(Method):
    """Go on, with the rows of each weight matrix pulled to be orthogonal and of one length, at every update."""

    coef: Annotated[
        float,
        Setting(
            "Factor of the penalty; 1e-3 is both sources' for dense and convolutional networks, 1e-5 for ViTs",
            at_least=0,
            search=Range(1e-5, 1e-1),
        ),
    ] = 1e-3
    scale: Annotated[
        float | None,
        Setting("s, the squared length of rows; the variant's if not given: 1 for ``fire``, 2 for ``chung``", above=0),
    ] = None
    variant: Annotated[Literal["fire", "chung"], Setting("Whose definition")] = "fire"
    head: Annotated[
        str | None,
        Setting(
            "The name of the output layer, which ``chung`` leaves out; None finds the layer that feeds the output",
            example="a layer",
        ),
    ] = None

    name: ClassVar[str] = "parseval"
    summary: ClassVar[str] = "go on, while a penalty coef ||W W^T - s I||^2 keeps the rows of weights orthogonal"
    source: ClassVar[str] = "Chung et al., NeurIPS 2024, arXiv 2412.07224; settings of FIRE, arXiv 2602.08040"
    year: ClassVar[int] = 2024
    acts: ClassVar[str] = "before each update"
    cost: ClassVar[str] = "a matrix product for each weight and update"
    limits: ClassVar[str] = "weights sharded over processes"
    page: ClassVar[str] = "regularising.md#parseval-regularisation"
    variants: ClassVar[Mapping[str, str]] = {name: kind.source for name, kind in VARIANTS.items()}

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Check that there is something to pull, and say what."""
        pulled = _pulled(model, self.coef, self.scale, self.variant, self._head(model, stage))
        gains = sum(one.rows is None for one in pulled)
        what = f"{counted(len(pulled) - gains, 'weight')} and {counted(gains, 'norm gain')}"
        return Report(self.name, self.settings(), notes=(f"nothing changed; {what} are pulled at every update",))

    def after_backward(self, model: nn.Module, stage: Stage) -> None:
        """Add the penalty's gradient."""
        parseval_(model, self.coef, scale=self.scale, variant=self.variant, head=self._head(model, stage))

    def _head(self, model: nn.Module, stage: Stage) -> str | None:
        return self.head or (head_of(model, stage) if VARIANTS[self.variant].hidden_layers else None)


@all_or_nothing
@torch.no_grad()
def parseval_(
    model: nn.Module,
    coef: float = Parseval.coef,
    *,
    scale: float | None = None,
    variant: Literal["fire", "chung"] = Parseval.variant,
    head: str | None = None,
) -> None:
    """Add the gradient of coef sum ||W W^T - s I||_F^2 to ``.grad``; call it after each ``backward()``.

    W has a row for each output: of a convolution all inputs and positions of the kernel. Each group of a convolution
    and each of attention's packed projections is a matrix. Embeddings, recurrent layers, biases and parametrised
    weights take no part.

    Args:
        model: The network; the ``.grad`` of trainable weights changes, its weights do not.
        coef: Factor of the penalty, >= 0. Gradients must not carry a loss scale.
        scale: s, the squared length to which rows are pulled; the variant's if not given, 1 or 2.
        variant: Whose definition: ``"fire"`` pulls every weight, and the gains g of norm layers by
            coef ||g^2 - s||^2; ``"chung"`` every weight but the head's, with coef (64 / rows)^2.
        head: Name of the output layer, for ``"chung"``.

    Raises:
        InputError: If a setting is out of range, the head is missing, weights are sharded over processes, or there is
            nothing to pull; nothing is changed then.
    """
    Parseval.check(coef=coef, scale=scale, variant=variant, head=head)
    pulled = _pulled(model, coef, scale, variant, head)
    gradients = {f"the gradient of {one.name}": one.parameter.grad for one in pulled if one.parameter.grad is not None}
    require_writable(gradients)
    keep(gradients.values())
    for one in pulled:
        one.add_gradient_()


@dataclass(frozen=True)
class _Pulled:
    """One parameter in the penalty."""

    name: str
    layer: nn.Module
    parameter: nn.Parameter
    rows: Tensor | None
    """The weight as (blocks, d_out, d_in, *kernel); None for the gain of a norm layer."""
    coef: float
    scale: float

    def add_gradient_(self) -> None:
        """4 coef (W W^T - s I) W, or 4 coef (g^2 - s) g."""
        if self.parameter.grad is None:
            on_failure(partial(setattr, self.parameter, "grad", None))
            self.parameter.grad = torch.zeros_like(self.parameter)
        if self.rows is None:
            g = self.parameter
            self.parameter.grad.add_((g.square() - self.scale) * g, alpha=4 * self.coef)
            return
        w = self.rows.flatten(2).to(torch.promote_types(self.rows.dtype, torch.float32))
        few_rows = w.shape[1] <= w.shape[2]  # the smaller of the two products, and the same matrix
        product = w @ w.mT @ w if few_rows else w @ (w.mT @ w)
        into = rows_of(self.layer, self.name.rpartition(".")[2], self.parameter.grad)
        assert into is not None
        into.add_((product - self.scale * w).reshape(into.shape), alpha=4 * self.coef)


def _pulled(model: nn.Module, coef: float, scale: float | None, variant: str, head: str | None) -> list[_Pulled]:
    """The trainable parameters that take part; raises InputError if anything is wrong."""
    model, _ = team_of(model)
    kind = VARIANTS[variant]
    s = kind.scale if scale is None else scale
    if kind.hidden_layers:
        require(head is not None, f"variant '{variant}' of parseval leaves the output layer out: pass head='its name'")
        require_head(model, str(head))
    else:
        require(head is None, f"head has no effect in variant '{variant}', which pulls the output layer too")
    found: list[_Pulled] = []
    for name, layer, key, parameter in each_parameter(model):
        rows = rows_of(layer, key, parameter)
        is_gain = is_norm(layer) and key == "weight" and not kind.hidden_layers
        outside = kind.hidden_layers and f"{name}.".startswith(f"{head}.")
        if not parameter.requires_grad or outside or (rows is None and not is_gain):
            continue
        if is_sharded(parameter):
            raise InputError(f"{name} is sharded, and parseval needs whole matrices: use DDP, or train unsharded")
        factor = (WIDTH / rows.shape[1]) ** 2 if kind.hidden_layers and rows is not None else 1.0
        found.append(_Pulled(name, layer, parameter, rows, coef * factor, s))
    require_values({one.name: one.parameter for one in found})
    if not found:
        raise InputError("the model has no weights to pull: parseval needs a trainable Linear, Conv or attention layer")
    return found
