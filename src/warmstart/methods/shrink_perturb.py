"""Shrink & Perturb:  w <- shrink * w + perturbation

Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020 (arXiv 1910.08475). Five definitions are in
circulation; `VARIANTS` names them, and the default is the one that the DASH paper compares itself with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import InputError, require
from warmstart.layers.coverage import weights_in
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.neurons import Filter, Neurons, neurons
from warmstart.layers.norms import has_norm
from warmstart.methods.cold import require_alike
from warmstart.methods.method import Method, Stage, require_own_memory, reset_optimizer_
from warmstart.methods.report import SHRINKS_SIGNAL, Report, uniform
from warmstart.network import require_generator, require_writable, tensors_of
from warmstart.processes import Team, laid_out_as, local, names_inside, on_inner_module, team_of
from warmstart.setting import Range, Search, Setting
from warmstart.undo import all_or_nothing, keep, keep_random_state

Other = nn.Module | Mapping[str, Tensor] | None
"""A network that is blended in, or its tensors by name."""


class _Shin:
    """The DASH paper's: weights and biases of linear and convolutional layers, noise, the optimizer goes on."""

    name, source = "dash", "Shin et al. 2024"
    shrink, noise_std = 0.3, 0.01
    acts_on_updates = False
    resets_optimizer = False

    def parameters(self, model: nn.Module, filter_fn: Filter | None) -> tuple[list[Neurons], list[LeftAlone]]:
        """What is shrunk, and what is left alone and why."""
        return neurons(model, filter_fn=filter_fn)

    def other(self, stage: Stage) -> Other:
        """The network that is blended in when new data arrives."""
        return None

    def share(self, shrink: float) -> float:
        """The share of that network."""
        return 0.0

    def blended(self, model: nn.Module, entries: list[Neurons], other: Other) -> list[Tensor] | None:
        """That network's tensors, in the order of the entries; None where the definition has none."""
        require(other is None, f"variant '{self.name}' blends nothing in: leave other out")
        return None

    def take_over_(self, model: nn.Module, other: Other, team: Team) -> None:
        """Copy what that network has besides weights."""


class _Renate(_Shin):
    """That of the library Renate: every parameter, norm gains included."""

    name, source = "renate", "Renate: norm gains included"
    shrink, noise_std = 0.95, 0.001

    def parameters(self, model: nn.Module, filter_fn: Filter | None) -> tuple[list[Neurons], list[LeftAlone]]:
        return _every_parameter(model, filter_fn)


class _Ash(_Renate):
    """Ash and Adams': the perturbation is a tenth of a fresh network, whose buffers are taken over."""

    name, source = "ash", "Ash and Adams 2020: a fresh network, its buffers, fresh optimizer"
    shrink, noise_std = 0.4, 0.0
    resets_optimizer = True

    def other(self, stage: Stage) -> Other:
        return stage.fresh()

    def share(self, shrink: float) -> float:
        return 0.1

    def blended(self, model: nn.Module, entries: list[Neurons], other: Other) -> list[Tensor] | None:
        if not isinstance(other, nn.Module):
            raise InputError("variant 'ash' adds 0.1 of a fresh network: pass other=make_model()")
        require_alike(model, other)
        return _tensors_for(model, entries, tensors_of(other))

    def take_over_(self, model: nn.Module, other: Other, team: Team) -> None:
        assert isinstance(other, nn.Module)
        _copy_buffers_(model, other, team)


class _HareTortoise(_Renate):
    """Lee et al.'s and FIRE's, (1 - c) w + c w_0: what is taken from the weights is made up by the first ones."""

    name, source = "hare-tortoise", "Lee et al. 2024, FIRE: the first weights; (1 - c) w + c w_0"
    shrink, noise_std = 0.2, 0.0

    def other(self, stage: Stage) -> Other:
        return stage.initial

    def share(self, shrink: float) -> float:
        return 1 - shrink

    def blended(self, model: nn.Module, entries: list[Neurons], other: Other) -> list[Tensor] | None:
        if not isinstance(other, (nn.Module, Mapping)):
            raise InputError("variant 'hare-tortoise' adds a share of the first weights: pass other=first_state_dict")
        return _tensors_for(model, entries, tensors_of(other) if isinstance(other, nn.Module) else other)


DOHARE_DECAY = 5e-4
"""The weight decay of SGD with momentum in Dohare et al.'s CIFAR-100 (lop/incremental_cifar)."""


class _Dohare(_Renate):
    """Dohare et al.'s: SGD's weight decay, and noise after every update; at rate 1e-3 one shrinks by `shrink`."""

    name, source = "dohare", "Dohare et al. 2024: weight decay 5e-4 in the gradient, noise after every update"
    shrink, noise_std = 1 - 1e-3 * DOHARE_DECAY, 1e-5
    acts_on_updates = True


VARIANTS: Mapping[str, _Shin] = MappingProxyType(
    {variant.name: variant for variant in (_Shin(), _Ash(), _HareTortoise(), _Dohare(), _Renate())}
)


@dataclass(frozen=True)
class ShrinkPerturb(Method):
    """Shrink & Perturb whenever new data arrives; the variant ``dohare`` at every update instead."""

    shrink: Annotated[
        float | None,
        Setting(
            "Factor of the old weights; the variant's if not given, 0.3 for ``dash``. ``dohare`` multiplies by it at "
            "each update; if it is not given, the gradient gets a weight decay of 5e-4",
            at_least=0,
            at_most=1,
            search=Range(0.05, 0.8),
        ),
    ] = None
    noise_std: Annotated[
        float | None,
        Setting(
            "Standard deviation of the noise, in the weights' units; the variant's if not given, 0.01 for ``dash``",
            at_least=0,
            search=Range(1e-3, 0.1),
        ),
    ] = None
    variant: Annotated[str, Setting("Whose definition", choices=tuple(VARIANTS))] = "dash"

    name: ClassVar[str] = "shrink-perturb"
    summary: ClassVar[str] = "shrink all weights by one factor and add noise"
    source: ClassVar[str] = "Ash and Adams, NeurIPS 2020, arXiv 1910.08475; settings of the DASH paper"
    year: ClassVar[int] = 2020
    acts: ClassVar[str] = "when data arrives; dohare: at each update"
    cost: ClassVar[str] = "one pass over the weights"
    limits: ClassVar[str] = "networks without norm layers"
    page: ClassVar[str] = "shrinking.md#shrink--perturb"
    follows: ClassVar[Collection[str]] = ("filter_fn",)
    variants: ClassVar[Mapping[str, str]] = {name: kind.source for name, kind in VARIANTS.items()}

    @property
    def acts_on_updates(self) -> bool:
        """Only ``dohare`` does."""
        return VARIANTS[self.variant].acts_on_updates

    @property
    def search(self) -> Mapping[str, Search]:
        """Factor and noise; nothing of a variant that acts on updates, whose factor belongs to its rate."""
        return {} if self.acts_on_updates else super().search

    @all_or_nothing
    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Shrink and perturb, with a fresh network or the first weights where the variant says so."""
        kind = VARIANTS[self.variant]
        if kind.acts_on_updates:
            return super().on_new_data(model, stage)
        other = kind.other(stage)
        report = shrink_perturb_(
            model,
            self.shrink,
            self.noise_std,
            variant=self.variant,
            other=other,
            generator=stage.generator,
            filter_fn=stage.filter_fn,
        )
        if kind.resets_optimizer and stage.optimizer is not None:
            reset_optimizer_(stage.optimizer)
            return report.with_notes("optimizer state reset")
        return report.with_notes("optimizer state kept")

    def after_backward(self, model: nn.Module, stage: Stage) -> None:
        """Add the weight decay to the gradient (``dohare``), unless a factor is given."""
        if self.acts_on_updates and self.shrink is None:
            _decay_(_every_parameter(model, stage.filter_fn)[0], stage.optimizer)

    def after_step(self, model: nn.Module, stage: Stage) -> None:
        """Add the noise after an update (``dohare``), after shrinking where a factor is given."""
        if self.acts_on_updates:
            _, noise_std = _settled(self.variant, self.shrink, self.noise_std)
            parameters = [entry.parameter for entry in _every_parameter(model, stage.filter_fn)[0]]
            _change_(parameters, 1.0 if self.shrink is None else self.shrink, noise_std, generator=stage.generator)


@all_or_nothing
def shrink_perturb_(
    model: nn.Module,
    shrink: float | None = None,
    noise_std: float | None = None,
    *,
    variant: str = "dash",
    other: nn.Module | Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
    filter_fn: Filter | None = None,
    apply: bool = True,
) -> Report:
    """Shrink the weights towards zero and add noise (or part of another network), in place.

    Args:
        model: The network. The variant ``"dash"`` changes weights and biases of linear and convolutional layers,
            norm layers stay; the other ones change every parameter.
        shrink: Factor in [0, 1]: 1 leaves the weights, 0 forgets them; the variant's if not given, 0.3 for ``"dash"``.
            ``"hare-tortoise"`` adds 1 - shrink of the first weights: FIRE's language runs take 0.8 or 0.5.
        noise_std: Standard deviation of the added Gaussian noise, in the weights' units; the variant's if not
            given, 0.01 for ``"dash"``.
        variant: Whose definition: ``dash``, ``ash``, ``hare-tortoise``, ``renate`` or ``dohare``, then one update's
            at a rate of 1e-3 and without momentum.
        other: What is blended in: a freshly made network for ``"ash"`` (its norm buffers are taken over too), the
            first weights by name, such as a copy of the first ``state_dict``, for ``"hare-tortoise"``.
        generator: Source of the noise; PyTorch's default one if not given. Under DistributedDataParallel and FSDP2 the
            first process's decides for all.
        filter_fn: ``filter_fn(module, name)`` says which layers take part; all do if not given.
        apply: False returns the report without touching a weight.

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
    shrink, noise_std = _settled(variant, shrink, noise_std)
    kind = VARIANTS[variant]
    neurons(model, filter_fn=filter_fn)  # which refuses weights without values, for any variant
    entries, left = kind.parameters(model, filter_fn)
    blended = team.attempt(partial(kind.blended, model, entries, other))
    if apply:
        team.attempt(partial(require_writable, {entry.name: entry.parameter for entry in entries}))
        others = None if blended is None else [team.broadcast_tensor(tensor) for tensor in blended]
        parameters = [entry.parameter for entry in entries]
        keep_random_state(generator, {local(parameter).device for parameter in parameters})
        _change_(parameters, shrink, noise_std, others, kind.share(shrink), _same_for_all(generator, team))
        kind.take_over_(model, other, team)
    settings = {"shrink": shrink, "noise_std": noise_std, "variant": variant}
    return Report(
        "shrink-perturb",
        settings,
        uniform(entries, shrink),
        tuple(left),
        warnings=(*(() if has_norm(model) else (SHRINKS_SIGNAL,)), *on_inner_module(team)),
        weights=weights_in(model),
        applied=apply,
    )


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


def _every_parameter(model: nn.Module, filter_fn: Filter | None) -> tuple[list[Neurons], list[LeftAlone]]:
    entries: list[Neurons] = []
    left: list[LeftAlone] = []
    for name, parameter in model.named_parameters():
        layer = model.get_submodule(name.rpartition(".")[0])
        if filter_fn is not None and not filter_fn(layer, name.rpartition(".")[0]):
            left.append(LeftAlone(name, "excluded by filter_fn"))
        elif not parameter.requires_grad:
            left.append(LeftAlone(name, "frozen (requires_grad is False)"))
        else:
            entries.append(Neurons(name, type(layer).__name__, parameter, tuple(range(parameter.dim()))))
    return entries, left


def _tensors_for(model: nn.Module, entries: list[Neurons], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Another network's tensors in the order of the entries; InputError if they do not fit or are the model's own."""
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


@torch.no_grad()
def _decay_(entries: list[Neurons], optimizer: Optimizer | None) -> None:
    """Add to each gradient what the optimizer's own weight decay lacks of 5e-4, as SGD adds its own."""
    groups = [] if optimizer is None else optimizer.param_groups
    own = {parameter: group.get("weight_decay", 0.0) for group in groups for parameter in group["params"]}
    for parameter in (entry.parameter for entry in entries):
        lacks = DOHARE_DECAY - own.get(parameter, 0.0)
        if parameter.grad is not None and lacks > 0:
            parameter.grad.add_(parameter, alpha=lacks)


def _settled(variant: str, shrink: float | None, noise_std: float | None) -> tuple[float, float]:
    """Factor and noise, the variant's where they are not given; InputError if one is out of range."""
    ShrinkPerturb.check(shrink=shrink, noise_std=noise_std, variant=variant)
    kind = VARIANTS[variant]
    return kind.shrink if shrink is None else shrink, kind.noise_std if noise_std is None else noise_std
