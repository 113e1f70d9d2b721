"""L2 Init, regenerative regularisation:  loss + (coef / 2) sum ||w - w_0||^2,  gradient + coef (w - w_0)

Kumar, Marklund and Van Roy, Maintaining Plasticity in Continual Learning via Regenerative Regularization,
2023 (arXiv 2308.11958), who write loss + lambda ||w - w_0||^2, so that their lambda is coef / 2: the factor 1/2 is that
of FIRE and of soft weight rescaling, from which the settings come, and makes coef the gradient's factor.
The code of Shin et al. (DASH, NeurIPS 2024) takes something else by the same name, here the variant ``dash``:
coef (sum ||w - w_0||)^2 over the ``.weight`` of all layers, norm gains included, with coef 1e-2; its gradient is
2 coef (sum ||w - w_0||) (w - w_0) / ||w - w_0||.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.methods.method import Method, Stage, first_value, require_own_memory
from warmstart.network import require_module, require_writable
from warmstart.processes import laid_out_as, names_inside, norm_of, unwrapped
from warmstart.setting import Range, Setting
from warmstart.undo import all_or_nothing, keep, on_failure


@dataclass(frozen=True)
class L2Init(Method):
    """Go on, with every update pulled towards the first weights."""

    coef: Annotated[
        float,
        Setting(
            "Factor of the pull; 1e-3 is FIRE's for warm starts, 1e-2 that of ``dash``",
            at_least=0,
            search=Range(1e-5, 1e-1),
        ),
    ] = 1e-3
    variant: Annotated[
        Literal["kumar", "dash"],
        Setting("(coef / 2) sum ||w - w_0||^2 over every parameter, or coef (sum ||w - w_0||)^2 over each ``weight``"),
    ] = "kumar"

    name: ClassVar[str] = "l2-init"
    summary: ClassVar[str] = "go on, while a penalty (coef/2) ||w - w_0||^2 pulls every parameter to its first value"
    source: ClassVar[str] = "Kumar et al. 2023, arXiv 2308.11958, lambda = coef / 2; coef as in FIRE, arXiv 2602.08040"
    year: ClassVar[int] = 2023
    acts: ClassVar[str] = "before each update"
    cost: ClassVar[str] = "a copy of the first weights, two additions an update"
    limits: ClassVar[str] = "where the first weights are not known"
    page: ClassVar[str] = "regularising.md#l2-init"
    variants: ClassVar[Mapping[str, str]] = {
        "kumar": "Kumar et al. 2023, scaled as in FIRE: (coef / 2) sum ||w - w_0||^2",
        "dash": "code of Shin et al. 2024: coef (sum ||w - w_0||)^2, with coef 1e-2",
    }

    def after_backward(self, model: nn.Module, stage: Stage) -> None:
        """Add the penalty's gradient."""
        _add_pull_(model, stage.initial, self.coef, self.variant)


@all_or_nothing
@torch.no_grad()
def l2_init_(
    model: nn.Module,
    initial: Mapping[str, Tensor],
    coef: float = L2Init.coef,
    *,
    variant: Literal["kumar", "dash"] = L2Init.variant,
) -> None:
    """Add the gradient of (coef / 2) sum ||w - w_0||^2 to ``.grad``; call it after each ``backward()``.

    Args:
        model: The network; the ``.grad`` of every trainable parameter changes (``"dash"``: of those that are a layer's
            ``weight``), its weights do not.
        initial: Its first weights w_0 by parameter name, such as a copy of ``model.state_dict()`` made before
            training, on the model's device. In several processes all of them hold the same, whole or, under FSDP2,
            sharded as the model is.
        coef: Factor of the gradient, >= 0. Gradients must not carry a loss scale.
        variant: ``"kumar"``, or ``"dash"`` for the penalty coef (sum ||w - w_0||)^2 of DASH's code, where a weight that
            is at its first value is not pulled.

    Raises:
        InputError: If coef is negative, or a parameter has no first value of its shape or is that value itself;
            nothing is changed then.
    """
    L2Init.check(coef=coef, variant=variant)
    require_module(model)
    keep(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    _add_pull_(model, initial, coef, variant)


@torch.no_grad()
def _add_pull_(model: nn.Module, initial: Mapping[str, Tensor], coef: float, variant: str) -> None:
    """The same, without a copy of the gradients to be put back: what fails in an update is lost with it."""
    if not isinstance(initial, Mapping):
        raise InputError(f"initial is a {type(initial).__name__}: pass the first weights by name, a copied state_dict")
    initial = names_inside(model, initial)
    model = unwrapped(model)
    require_own_memory(model, initial, "initial")
    pairs: list[tuple[nn.Parameter, Tensor]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (variant == "kumar" or name.rpartition(".")[2] == "weight"):
            pairs.append((parameter, first_value(initial, name, parameter)))
    gradients = {f"the gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    require_writable(gradients)
    for parameter, _ in pairs:
        if parameter.grad is None:
            on_failure(partial(setattr, parameter, "grad", None))
            parameter.grad = torch.zeros_like(parameter)
    if variant == "kumar":
        for parameter, first in pairs:
            assert parameter.grad is not None
            parameter.grad.add_(parameter, alpha=coef).sub_(laid_out_as(parameter, first), alpha=coef)
        return
    norms = [norm_of(parameter - laid_out_as(parameter, first)) for parameter, first in pairs]
    twice = 2 * sum(norms)
    for (parameter, first), norm in zip(pairs, norms, strict=True):
        assert parameter.grad is not None
        direction = (parameter - laid_out_as(parameter, first)) * torch.where(norm > 0, twice / norm, 0.0)
        parameter.grad.add_(direction, alpha=coef)
