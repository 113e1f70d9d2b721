"""Shrink & Perturb:  w <- shrink * w + perturbation

Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020 (arXiv 1910.08475). Five definitions are in
circulation; `VARIANTS` names them, and the default is the one that the DASH paper compares itself with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.errors import InputError, nearest, number, require, within
from warmstart.layers.coverage import weights_in
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import Neurons, neurons
from warmstart.layers.norms import has_norm
from warmstart.methods.cold import require_alike
from warmstart.methods.method import Method, Stage, require_own_memory, reset_optimizer_
from warmstart.methods.report import SHRINKS_SIGNAL, Report, uniform
from warmstart.methods.search import Range, Search
from warmstart.network import require_generator, require_writable, tensors_of
from warmstart.processes import Team, laid_out_as, local, names_inside, on_inner_module, team_of
from warmstart.undo import all_or_nothing, keep, keep_random_state


@dataclass(frozen=True)
class Variant:
    """One definition of Shrink & Perturb:  w <- shrink w + noise_std N(0, 1) + blend w_other."""

    shrink: float
    noise_std: float
    blend: float = 0.0
    """Weight of another network: a freshly drawn one or the run's first weights."""
    convex: bool = False
    """True: the two add up to 1, so that ``blend`` is 1 - shrink, whatever shrink is."""
    every_parameter: bool = True
    """False: weights and biases of linear and convolutional layers only."""
    every_update: bool = False
    """True: after each update of the optimizer, not when new data arrives."""
    source: str = ""


DOHARE_DECAY = 5e-4
"""SGD's weight decay in Dohare et al.: an update shrinks by 1 - lr * 5e-4."""

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "dash": Variant(0.3, 0.01, every_parameter=False, source="Shin et al. 2024"),
        "ash": Variant(0.4, 0.0, blend=0.1, source="Ash and Adams 2020: a fresh network, its buffers, fresh optimizer"),
        "hare-tortoise": Variant(
            0.2, 0.0, blend=0.8, convex=True, source="Lee et al. 2024, FIRE: the first weights; (1 - c) w + c w_0"
        ),
        "dohare": Variant(1 - 1e-3 * DOHARE_DECAY, 1e-5, every_update=True, source="Dohare et al. 2024, lr 1e-3"),
        "renate": Variant(0.95, 0.001, source="Renate: norm gains included"),
    }
)


@dataclass(frozen=True)
class ShrinkPerturb(Method):
    """Shrink & Perturb whenever new data arrives; the variant ``dohare`` after every update instead."""

    shrink: float | None = None
    """Factor of the old weights; the variant's if not given (``dohare``: 1 - lr * 5e-4)."""
    noise_std: float | None = None
    """Standard deviation of the noise, in the weights' units; the variant's if not given."""
    variant: str = "dash"

    name: ClassVar[str] = "shrink-perturb"
    summary: ClassVar[str] = "shrink all weights by one factor and add noise"
    source: ClassVar[str] = "Ash and Adams, NeurIPS 2020, arXiv 1910.08475; settings of the DASH paper"
    year: ClassVar[int] = 2020
    acts: ClassVar[str] = "when data arrives; dohare: after each update"
    cost: ClassVar[str] = "one pass over the weights"
    limits: ClassVar[str] = "networks without norm layers"
    page: ClassVar[str] = "shrinking.md#shrink--perturb"
    variants: ClassVar[Mapping[str, str]] = {name: rule.source for name, rule in VARIANTS.items()}

    def __post_init__(self) -> None:
        variant = _variant(self.variant)
        if self.noise_std is None:
            object.__setattr__(self, "noise_std", variant.noise_std)
        if self.shrink is None and not variant.every_update:
            object.__setattr__(self, "shrink", variant.shrink)
        _check(variant.shrink if self.shrink is None else self.shrink, self.noise_std or 0.0)

    def __str__(self) -> str:
        """The name, with the settings that differ from the variant's."""
        usual, own = VARIANTS[self.variant], self.settings()
        changed = [f"variant={self.variant}"] * (self.variant != "dash")
        changed += [f"shrink={own['shrink']}"] * (self.shrink != (None if usual.every_update else usual.shrink))
        changed += [f"noise_std={own['noise_std']}"] * (self.noise_std != usual.noise_std)
        return f"{self.name}[{','.join(changed)}]" if changed else self.name

    @property
    def acts_on_updates(self) -> bool:
        """Only ``dohare`` does."""
        return VARIANTS[self.variant].every_update

    @property
    def search(self) -> Mapping[str, Search]:
        """The factor, and the noise; nothing of a variant that acts on updates, whose factor belongs to its rate."""
        return (
            {} if VARIANTS[self.variant].every_update else {"shrink": Range(0.05, 0.8), "noise_std": Range(1e-3, 0.1)}
        )

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Shrink and perturb, with a fresh network or the first weights where the variant says so."""
        if VARIANTS[self.variant].every_update:
            return Report(self.name, self.settings(), notes=("acts after every update",))
        other: nn.Module | Mapping[str, Tensor] | None = None
        if VARIANTS[self.variant].blend:
            other = stage.fresh() if self.variant == "ash" else stage.initial
        report = shrink_perturb_(
            model, self.shrink, self.noise_std, variant=self.variant, other=other, generator=stage.generator
        )
        if self.variant == "ash" and stage.optimizer is not None:
            reset_optimizer_(stage.optimizer)
            return report.with_notes("optimizer state reset")
        return report.with_notes("optimizer state kept")

    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Shrink and perturb after an update (``dohare``)."""
        if VARIANTS[self.variant].every_update:
            lr = stage.optimizer.param_groups[0]["lr"] if stage.optimizer is not None else 1e-3
            shrink = 1 - lr * DOHARE_DECAY if self.shrink is None else self.shrink
            parameters = [entry.parameter for entry in _every_parameter(model)[0]]
            _change_(parameters, shrink, self.noise_std or 0.0, generator=stage.generator)


@all_or_nothing
def shrink_perturb_(
    model: nn.Module,
    shrink: float | None = None,
    noise_std: float | None = None,
    *,
    variant: str = "dash",
    other: nn.Module | Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Report:
    """Shrink the weights towards zero and add noise (or part of another network), in place.

    Args:
        model: The network. The variant ``"dash"`` changes weights and biases of linear and convolutional layers,
            norm layers stay; the other ones change every parameter.
        shrink: Factor in [0, 1]: 1 leaves the weights, 0 forgets them; the variant's if not given, 0.3 for ``"dash"``.
            ``"hare-tortoise"`` adds 1 - shrink of the first weights: FIRE's language runs take 0.8 or 0.5.
        noise_std: Standard deviation of the added Gaussian noise, in the weights' units; the variant's if not
            given, 0.01 for ``"dash"``.
        variant: Whose definition: ``dash``, ``ash``, ``hare-tortoise``, ``dohare`` (one update's) or ``renate``.
        other: What is blended in: a freshly made network for ``"ash"`` (its norm buffers are taken over too), the
            first weights by name, such as a copy of the first ``state_dict``, for ``"hare-tortoise"``.
        generator: Source of the noise; PyTorch's default one if not given. Under DistributedDataParallel and FSDP2 the
            first process's decides for all.

    Returns:
        What was changed, by layer, and what was left alone and why.

    Raises:
        InputError: If a setting is out of range, the variant wants another network, or there is nothing to
            shrink. Nothing is changed then.

    Example:
        >>> layer = torch.nn.Linear(3, 1)
        >>> _ = torch.nn.init.ones_(layer.weight)
        >>> report = ws.shrink_perturb_(layer, shrink=0.3, noise_std=0.0)
        >>> layer.weight.data
        tensor([[0.3000, 0.3000, 0.3000]])
    """
    require_generator(generator)
    if isinstance(other, Mapping):
        other = names_inside(model, other)
    model, team = team_of(model)
    kind = _variant(variant)
    shrink = kind.shrink if shrink is None else shrink
    noise_std = kind.noise_std if noise_std is None else noise_std
    _check(shrink, noise_std)
    entries, left = neurons(model)  # which refuses weights without values, for any variant
    if kind.every_parameter:
        entries, left = _every_parameter(model)
    blended = team.attempt(partial(_blended, model, entries, kind, variant, other))
    team.attempt(partial(require_writable, {entry.name: entry.parameter for entry in entries}))
    others = None if blended is None else [team.broadcast_tensor(tensor) for tensor in blended]
    parameters = [entry.parameter for entry in entries]
    keep_random_state(generator, {local(parameter).device for parameter in parameters})
    blend = 1 - shrink if kind.convex else kind.blend
    _change_(parameters, shrink, noise_std, others, blend, _same_for_all(generator, team))
    if variant == "ash":
        assert isinstance(other, nn.Module)
        _copy_buffers_(model, other, team)
    settings = {"shrink": shrink, "noise_std": noise_std, "variant": variant}
    warnings = (*(() if has_norm(model) else (SHRINKS_SIGNAL,)), *on_inner_module(team))
    rows = uniform(entries, shrink)
    return Report("shrink-perturb", settings, rows, tuple(left), warnings=warnings, weights=weights_in(model))


@torch.no_grad()
def _change_(
    parameters: list[nn.Parameter],
    shrink: float,
    noise_std: float,
    others: list[Tensor] | None = None,
    blend: float = 0.0,
    generator: torch.Generator | None = None,
) -> None:
    """W <- shrink w + noise_std N(0, 1) + blend w_other."""
    keep(parameters)
    for i, parameter in enumerate(parameters):
        parameter.mul_(shrink)
        if noise_std > 0:
            device = parameter.device if generator is None else generator.device
            noise = torch.randn(parameter.shape, generator=generator, device=device)
            parameter.add_(laid_out_as(parameter, noise), alpha=noise_std)
        if others is not None:
            parameter.add_(laid_out_as(parameter, others[i]), alpha=blend)


def _same_for_all(generator: torch.Generator | None, team: Team) -> torch.Generator | None:
    """A generator with the same numbers in all processes, on the CPU since those of two GPUs may differ."""
    if team.size == 1:
        return generator
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return torch.Generator().manual_seed(team.broadcast(seed))


def _every_parameter(model: nn.Module) -> tuple[list[Neurons], list[LeftAlone]]:
    entries = [
        Neurons(
            name,
            type(model.get_submodule(name.rpartition(".")[0])).__name__,
            parameter,
            tuple(range(parameter.dim())),
        )
        for name, parameter in model.named_parameters()
    ]
    trainable = [entry for entry in entries if entry.parameter.requires_grad]
    frozen = [LeftAlone(e.name, "frozen (requires_grad is False)") for e in entries if not e.parameter.requires_grad]
    return trainable, frozen


def _blended(
    model: nn.Module,
    entries: list[Neurons],
    kind: Variant,
    variant: str,
    other: nn.Module | Mapping[str, Tensor] | None,
) -> list[Tensor] | None:
    """The other network's tensors in the order of the entries; None where the variant has none."""
    if kind.blend == 0:
        require(other is None, f"variant '{variant}' blends nothing in: leave other out")
        return None
    if variant == "ash":
        if not isinstance(other, nn.Module):
            raise InputError("variant 'ash' adds 0.1 of a fresh network: pass other=make_model()")
        require_alike(model, other)
    if not isinstance(other, (nn.Module, Mapping)):
        raise InputError(f"variant '{variant}' adds a share of the first weights: pass other=first_state_dict")
    tensors = tensors_of(other) if isinstance(other, nn.Module) else other
    for entry in entries:
        if entry.name not in tensors or tensors[entry.name].shape != entry.parameter.shape:
            raise InputError(f"other holds no {entry.name} of shape {tuple(entry.parameter.shape)}")
    require_own_memory(model, tensors, "other")
    return [tensors[entry.name] for entry in entries]


@torch.no_grad()
def _copy_buffers_(model: nn.Module, other: nn.Module, team: Team) -> None:
    theirs = dict(other.named_buffers())
    keep(model.buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(team.broadcast_tensor(theirs[name]))


def _variant(name: str) -> Variant:
    if not isinstance(name, str) or name not in VARIANTS:
        raise InputError(f"variant '{name}' of shrink-perturb is unknown{nearest(str(name), VARIANTS)}")
    return VARIANTS[name]


def _check(shrink: float, noise_std: float) -> None:
    within("shrink", shrink, 0 <= number("shrink", shrink) <= 1, "in [0, 1]")
    within("noise_std", noise_std, number("noise_std", noise_std) >= 0, "at least 0")
