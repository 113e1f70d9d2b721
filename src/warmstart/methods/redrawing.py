"""What methods that redraw units share: which units they are, what is remembered of each, and the redrawing itself.

A redrawn unit has fresh incoming weights, bias 0, norm layers as they began, and outgoing weights 0, so that it says
nothing yet; the optimizer's moments of exactly these elements are 0 as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.norms import is_norm
from warmstart.layers.parts import Part
from warmstart.layers.units import Units
from warmstart.methods.method import Method, Stage
from warmstart.methods.report import Report
from warmstart.methods.training_state import moments_of
from warmstart.network import require_writable, tensors_of
from warmstart.undo import keep, keep_random_state, on_failure
from warmstart.wording import counted

_FIRST_VALUES = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""Of a norm layer."""
_FEW = 0.5
"""Below this share of the hidden units, what can be redrawn is few enough to be warned of."""


def layers_to_redraw(stage: Stage) -> list[Units]:
    """The layers whose units can be redrawn one by one; raise InputError if there is none."""
    found = [layer for layer in stage.units() if _why_not(layer) is None]
    if not found:
        why = "; ".join(f"{layer.layer}: {_why_not(layer)}" for layer in stage.units()[:4])
        raise InputError(f"the network has no unit that can be redrawn alone ({why}): use a method that needs none")
    return found


def _why_not(layer: Units) -> str | None:
    """Why a layer's units stay as they are, or None."""
    if not layer.redrawable:
        return "its units are the network's output"
    if not layer.private:
        return "its units are added to another layer's, or multiplied with them"
    return None if layer.activation is not None else "no module takes or returns its activations"


def seen(model: nn.Module, stage: Stage) -> Iterator[tuple[Units, Tensor]]:
    """The layers of `layers_to_redraw` that this update's batch went through.

    Yields:
        Each with its activations (rows, units), in fp32.

    Raises:
        InputError: If nothing was seen of any layer, or the optimizer is not known or cannot be reset unit by unit.
    """
    layers = layers_to_redraw(stage)
    if stage.optimizer is None:
        raise InputError(
            "redrawing a unit resets its moments, so the optimizer is needed: apply_(model, optimizer), or "
            "ws.compare(..., make_optimizer=)"
        )
    if stage.step == 0:  # later would be too late
        for layer in layers:
            for name, tensor in _touched(model, layer).items():
                _moments(stage.optimizer, name, tensor)
    if not any(layer.layer in stage.activations for layer in layers):
        raise InputError(
            "no activations were seen in this update: run the network in train mode before each update; where "
            "torch.compile has compiled it before, apply_ comes first, since what is compiled takes no new hooks"
        )
    for layer in layers:
        if layer.layer in stage.activations:
            yield layer, stage.activations[layer.layer].float()


def remembered(
    stage: Stage, layer: Units, what: str, shape: tuple[int, ...], value: float = 0, dtype: torch.dtype = torch.float
) -> Tensor:
    """What a method remembers of a layer under this name, about to be changed in place; one value at first."""
    name = f"{what} of {layer.layer}"
    if name not in stage.state:
        on_failure(partial(stage.state.pop, name, None))
        stage.state[name] = torch.full(shape, value, dtype=dtype, device=stage.activations[layer.layer].device)
    keep([stage.state[name]])
    return stage.state[name]


def redraw_(model: nn.Module, stage: Stage, chosen: Iterable[tuple[Units, Tensor]]) -> None:
    """Redraw units, and reset the moments of what changes; call it inside `all_or_nothing`.

    Args:
        model: The network, changed in place.
        stage: The stage that is being trained, with its optimizer and source of randomness.
        chosen: Layers of `layers_to_redraw`, each with the numbers of its units, (n,).
    """
    chosen = [(layer, which) for layer, which in chosen if len(which)]
    assert stage.optimizer is not None
    touched = {name: tensor for layer, _ in chosen for name, tensor in _touched(model, layer).items()}
    moments = {name: _moments(stage.optimizer, name, tensor) for name, tensor in touched.items()}
    require_writable(touched)
    keep([*touched.values(), *(moment for found in moments.values() for moment in found)])
    keep_random_state(stage.generator)
    for layer, which in chosen:
        bound = _first_bound(model, stage, layer)
        for part in layer.incoming:
            shape = part.of(touched[part.name], which).shape
            part.copy_(touched[part.name], which, bound * (2 * torch.rand(shape, generator=stage.generator) - 1))
        for part in _biases(layer):
            part.fill_(touched[part.name], which, 0.0)
        for part in layer.norms:
            owner, _, kind = part.name.rpartition(".")
            if kind in _FIRST_VALUES and is_norm(model.get_submodule(owner)):
                part.fill_(touched[part.name], which, _FIRST_VALUES[kind])
    for layer, which in chosen:  # after all incoming weights, some of which these are
        for part in layer.outgoing:
            part.fill_(touched[part.name], which, 0.0)
        for part in _parts(layer):
            for moment in moments[part.name]:
                part.fill_(moment, which, 0.0)
        remembered(stage, layer, "redrawn", (), dtype=torch.long).add_(len(which))


def _fan_in(model: nn.Module, layer: Units) -> int:
    """How many incoming weights a unit has."""
    return sum(part.of(model.get_parameter(part.name))[0].numel() for part in layer.incoming)


def _first_bound(model: nn.Module, stage: Stage, layer: Units) -> float:
    """The bound of a uniform draw as the layer's first weights were spread, or else as PyTorch draws a layer."""
    if not len(stage.initial):  # which it is too where nobody has passed first weights
        return 1 / math.sqrt(_fan_in(model, layer))
    first = []
    for part in layer.incoming:
        if part.name not in stage.initial or stage.initial[part.name].shape != model.get_parameter(part.name).shape:
            raise InputError(f"initial holds no first value for {part.name}, from which units are redrawn")
        first.append(part.of(stage.initial[part.name]).float().flatten())
    std = torch.cat(first).std().item()
    return math.sqrt(3) * std if std > 0 else 1 / math.sqrt(_fan_in(model, layer))


def _biases(layer: Units) -> tuple[Part, ...]:
    return () if layer.bias is None else (layer.bias,)


def _parts(layer: Units) -> tuple[Part, ...]:
    return (*layer.incoming, *_biases(layer), *layer.norms, *layer.outgoing)


def _touched(model: nn.Module, layer: Units) -> dict[str, Tensor]:
    """The parameters and buffers that hold parts of a layer's units, by name."""
    tensors = tensors_of(model)
    return {part.name: tensors[part.name] for part in _parts(layer)}


def _moments(optimizer: Optimizer, name: str, tensor: Tensor) -> list[Tensor]:
    """An optimizer's moments of a tensor; raise InputError for those that do not tell its elements apart."""
    found = dict(moments_of(optimizer, tensor))
    for key, moment in found.items():
        require_writable({f"{key} of {name}": moment})
        if moment.shape != tensor.shape:
            raise InputError(
                f"{type(optimizer).__name__} keeps {key} of {name} in another shape, which cannot be reset for single "
                "units: use SGD, SAM, Adam, AdamW or Muon"
            )
    return list(found.values())


def described(method: Method, stage: Stage, note: str) -> Report:
    """What a method can and cannot redraw, and has redrawn so far; raise InputError if it can redraw nothing."""
    layers, hidden = layers_to_redraw(stage), [layer for layer in stage.units() if not layer.is_output]
    left = [LeftAlone(layer.layer, reason) for layer in stage.units() if (reason := _why_not(layer))]
    can, of = (sum(layer.count for layer in some) for some in (layers, hidden))
    share = f"{can:,} of {counted(of, 'hidden unit')} can be redrawn ({can / of:.0%})"
    redrawn = {layer.layer: int(stage.state.get(f"redrawn of {layer.layer}", 0)) for layer in layers}
    most = sorted(filter(redrawn.get, redrawn), key=lambda name: -redrawn[name])[:3]
    so_far = f"redrawn so far: {counted(sum(redrawn.values()), 'unit')}"
    so_far += f", most of all {', '.join(f'{redrawn[name]:,} of {name}' for name in most)}" if most else ""
    warnings = [] if can / of >= _FEW else [f"only {share}"]
    if coupled := sum(layer.count for layer in layers if layer.coupled_by):
        warnings.append(f"{counted(coupled, 'unit')} of these share a norm layer's mean: one redrawn shifts the others")
    return Report(method.name, method.settings(), (), tuple(left), (note, share, so_far), tuple(warnings))
