"""FIRE, Frobenius-Isometry REinitialization:  W <- sqrt(d_out / d_in) W (W^T W)^(-1/2)

the nearest isometry to each matrix W (its polar factor); in a convolution the matrices are those of the positions of
the kernel, and the result is divided by their number.
Han, Park, Oh, Kim, Lee and Kim, FIRE: Frobenius-Isometry Reinitialization for Balancing the Stability-Plasticity
Tradeoff, ICLR 2026 (arXiv 2602.08040).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.layers.convolutions import has_convolution
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.matrices import Projection, attention_projections, embeddings, is_attention, matrices_of
from warmstart.layers.neurons import Filter, Neurons, neurons
from warmstart.layers.norms import batch_norms, has_norm
from warmstart.methods.method import Method, Stage, reset_optimizer_
from warmstart.methods.report import NumbersReport, Report
from warmstart.network import require_optimizer, require_writable
from warmstart.precision import in_fp32
from warmstart.processes import is_sharded, team_of
from warmstart.setting import Setting
from warmstart.undo import all_or_nothing, keep
from warmstart.wording import counted

LOWEST = 1e-3
"""The ratio of smallest to largest singular value the iteration is fastest for; smaller ones take longer."""

TALL = 2
"""Rows for each column from which on a matrix is first split into an isometry and a small square one."""

PUBLISHED = 10
"""Iterations of the authors' code for images; for language it takes 5."""

CHUNK = 2**20
"""Weights iterated together, or one matrix where it is larger: all iterate until the slowest has converged."""


@dataclass(frozen=True)
class Fire(Method):
    """FIRE whenever new data arrives; the optimizer starts anew, as for all methods of the paper's protocol."""

    tolerance: Annotated[
        float, Setting("Deviation ||X^T X - I||_F / sqrt(n) at which the iteration ends", above=0, below=1)
    ] = 1e-4
    max_iterations: Annotated[int, Setting("Iterations at most", at_least=1)] = 40
    optimizer_state: Annotated[
        Literal["reset", "keep"], Setting("Of the optimizer that goes on: ``reset`` (the paper's) or ``keep``")
    ] = "reset"
    variant: Annotated[
        Literal["newton-schulz", "polar", "published"],
        Setting(
            "How the isometry is found: iterated to the tolerance; exactly, by singular value decomposition; or "
            "approached in 10 plain iterations, as in the authors' code (``max_iterations`` where that is fewer)"
        ),
    ] = "newton-schulz"

    name: ClassVar[str] = "fire"
    summary: ClassVar[str] = "replace each weight matrix by the nearest isometry, reset the optimizer"
    source: ClassVar[str] = "Han et al., ICLR 2026, arXiv 2602.08040"
    year: ClassVar[int] = 2026
    acts: ClassVar[str] = "when data arrives"
    cost: ClassVar[str] = "some matrix products for each weight, no data"
    limits: ClassVar[str] = "sharded weights; it forgets the optimizer's state"
    page: ClassVar[str] = "fire.md"
    follows: ClassVar[Collection[str]] = ("filter_fn",)
    variants: ClassVar[Mapping[str, str]] = {
        "newton-schulz": "the paper's: iterated to the tolerance",
        "polar": "exact, by singular value decomposition",
        "published": "the authors' code: 10 plain iterations, or max_iterations=5 as for language",
    }

    def on_new_data(self, model: nn.Module, stage: Stage) -> Report:
        """Make the weights isometric, and reset the optimizer that goes on, if there is one."""
        return fire_(
            model,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            filter_fn=stage.filter_fn,
            optimizer=stage.optimizer,
            optimizer_state=self.optimizer_state,
            variant=self.variant,
        )


@all_or_nothing
@torch.no_grad()
def fire_(
    model: nn.Module,
    *,
    tolerance: float = Fire.tolerance,
    max_iterations: int = Fire.max_iterations,
    filter_fn: Filter | None = None,
    optimizer: Optimizer | None = None,
    optimizer_state: Literal["reset", "keep"] = Fire.optimizer_state,
    variant: Literal["newton-schulz", "polar", "published"] = Fire.variant,
    apply: bool = True,
) -> Report:
    """Replace the weights of linear and convolutional layers by the nearest isometry, in place; no data is needed.

    Train the model before it predicts: its batch-norm statistics no longer fit the weights.

    Args:
        model: The network. Biases, norm layers, embeddings and depthwise convolutions stay. Where attention takes part,
            only the projections of queries and keys change, as in the paper's vision transformer: in a
            `torch.nn.MultiheadAttention`, and in linear layers called q, k and v or qkv, unless the network looks up
            tokens and has no convolution, a language model, where the paper changes all; here a head that shares the
            embeddings' weights stays.
        tolerance: What remains of ``||X^T X - I||_F / sqrt(n)``, in (0, 1), for every matrix X with n columns.
        max_iterations: Where to stop in any case; matrices that are not of full rank never get there.
        filter_fn: ``filter_fn(module, name)`` says which layers take part; all do if not given.
        optimizer: The optimizer that goes on, for ``optimizer_state``.
        optimizer_state: ``"reset"`` (the paper's protocol for all its methods) or ``"keep"``.
        variant: ``"newton-schulz"`` iterates to the tolerance; ``"polar"`` takes U V^T of the singular value
            decomposition in fp64, exact and slower, where ``max_iterations`` means nothing; ``"published"`` takes the
            authors' 10 plain iterations from W / ||W||_F, or ``max_iterations`` if these are fewer, whatever remains.
        apply: False returns the report without touching a weight.

    Returns:
        By parameter the ratio of its Frobenius norms, new to old, the number of its matrices, the most iterations that
        one of them took, and the largest deviation that remained, before they were multiplied by their factor; what
        was left alone and why.

    Raises:
        InputError: If a setting is out of range, weights are not finite or sharded over processes, or there is
            nothing to change. The model is bit for bit what it was.

    Example:
        >>> layer = torch.nn.Linear(4, 4)
        >>> report = ws.fire_(layer)
        >>> torch.linalg.svdvals(layer.weight.detach()).round(decimals=2)  # no direction is stretched more than another
        tensor([1., 1., 1., 1.])
    """
    Fire.check(tolerance=tolerance, max_iterations=max_iterations, optimizer_state=optimizer_state, variant=variant)
    if optimizer is not None:
        require_optimizer(optimizer)
    model, _ = team_of(model)
    layers, left = _layers(model, filter_fn)
    if apply:
        require_writable({layer.entry.name: layer.entry.parameter for layer in layers})
    solvers: dict[str, Callable[[Tensor], tuple[Tensor, int]]] = {
        "newton-schulz": partial(_polar_, tolerance=tolerance, max_iterations=max_iterations),
        "polar": _exactly_polar_,
        "published": partial(_as_published_, iterations=min(PUBLISHED, max_iterations)),
    }
    with in_fp32(layers[0].view.device.type):
        solved = {name: (weights, report) for name, weights, report in _solve(layers, solvers[variant])}
    reports = [solved[layer.entry.name][1] for layer in layers]
    notes, warnings = _sentences(reports, tolerance, variant)
    if apply:
        for layer in layers:
            keep([layer.entry.parameter])
            weights, _ = solved[layer.entry.name]
            layer.view.copy_(weights.reshape(layer.view.shape))
        if optimizer is not None and optimizer_state == "reset":
            reset_optimizer_(optimizer)
        notes.append("optimizer not touched" if optimizer is None else f"optimizer state {_DONE[optimizer_state]}")
        if batch_norms(model):
            notes.append("batch-norm statistics kept: train before predicting")
    if not has_norm(model):
        warnings.append("no normalisation layers, so the scale of the output changes")
    settings = {"tolerance": tolerance, "max_iterations": max_iterations, "variant": variant}
    return Report("fire", settings, tuple(reports), tuple(left), tuple(notes), tuple(warnings), applied=apply)


_DONE = {"reset": "reset", "keep": "kept"}


@dataclass(frozen=True)
class _Layer:
    """The matrices of one parameter."""

    entry: Neurons
    view: Tensor
    """The parameter, seen as (..., d_out, d_in); what is written to it is written to the parameter."""

    @property
    def count(self) -> int:
        return math.prod(self.view.shape[:-2])

    @property
    def is_wide(self) -> bool:
        return self.view.shape[-2] < self.view.shape[-1]

    @property
    def factor(self) -> float:
        """sqrt(d_out / d_in) / (k_h k_w)."""
        d_out, d_in = self.view.shape[-2:]
        return math.sqrt(d_out / d_in) / math.prod(self.view.shape[1:-2])

    def tall(self) -> Tensor:
        """A copy as (matrices, m, n) with m >= n, in fp32 at least; contiguous."""
        matrices = self.view.flatten(0, -3).to(torch.promote_types(self.view.dtype, torch.float32))
        return (matrices.mT if self.is_wide else matrices).contiguous()


def _layers(model: nn.Module, filter_fn: Filter | None) -> tuple[list[_Layer], list[LeftAlone]]:
    """The layers that change and the parameters left alone; raises InputError if anything is wrong."""
    entries, left = neurons(model, "neuron", filter_fn)
    owners = [model.get_submodule(entry.name.rpartition(".")[0]) for entry in entries]
    projections = attention_projections(model)
    asked = any(id(entry.parameter) in projections for entry in entries)
    language = bool(embeddings(model)) and not has_convolution(model)  # the paper changes all layers of those
    attention = any(is_attention(owner) for owner in owners) or (asked and not language)
    embedded = {id(weight) for layer in embeddings(model) for weight in layer.parameters(recurse=False)}
    layers: list[_Layer] = []
    for entry, owner in zip(entries, owners, strict=True):
        weight, key = entry.parameter, entry.name.rpartition(".")[2]
        projection = projections.get(id(weight))
        if id(weight) in embedded:
            left.append(LeftAlone(entry.name, "embedding"))
        elif "bias" in key:
            left.append(LeftAlone(entry.name, "bias"))
        elif is_sharded(weight):
            raise InputError(f"{entry.name} is sharded, and FIRE needs whole matrices: call fire_ before fully_shard")
        elif not bool(weight.isfinite().all()):
            raise InputError(f"{entry.name} holds NaN or infinite weights: restore a sound checkpoint first")
        elif attention and not _makes_queries_or_keys(key, projection):
            left.append(LeftAlone(entry.name, "with attention, only queries and keys change (the paper's ViT)"))
        elif attention and projection is not None and projection.unclear:
            left.append(LeftAlone(entry.name, f"queries, keys and values in one, and {projection.unclear}"))
        elif isinstance(matrices := matrices_of(owner, key, weight, projection, everything=not attention), str):
            left.append(LeftAlone(entry.name, matrices))
        elif not bool(matrices.any()):
            left.append(LeftAlone(entry.name, "all zero, so no isometry is nearest"))
        else:
            layers.append(_Layer(entry, matrices))
    if not layers:
        why = {entry.reason: entry.name for entry in reversed(left)}  # by reason the first one
        telling = [reason for reason in why if reason not in ("norm layer", "bias")] or list(why)
        reasons = "; ".join(f"{why[reason]}: {reason}" for reason in telling[:3])
        raise InputError(f"the model has no weights to make isometric ({reasons}); FIRE needs a Linear or Conv layer")
    return layers, left


def _makes_queries_or_keys(key: str, projection: Projection | None) -> bool:
    if projection is not None:
        return projection.queries_and_keys > 0
    return key in ("in_proj_weight", "q_proj_weight", "k_proj_weight")


def _solve(
    layers: Sequence[_Layer], solve_: Callable[[Tensor], tuple[Tensor, int]]
) -> Iterator[tuple[str, Tensor, NumbersReport]]:
    """The new weights of each parameter, by name, solved together where shapes agree."""
    alike: dict[tuple[object, ...], list[_Layer]] = {}
    for layer in layers:
        alike.setdefault((layer.view.device, layer.view.dtype, *sorted(layer.view.shape[-2:])), []).append(layer)
    for group in alike.values():
        stack = torch.cat([layer.tall() for layer in group])
        chunks = stack.split(max(1, CHUNK // stack[0].numel()))
        outcomes = [solve_(chunk) for chunk in chunks]
        deviations = torch.cat([deviation for deviation, _ in outcomes])
        iterations = torch.cat([torch.full((len(d),), taken) for d, taken in outcomes])
        counts = [layer.count for layer in group]
        parts = zip(group, *(tensor.split(counts) for tensor in (stack, deviations, iterations)), strict=True)
        for layer, isometries, deviation, taken in parts:
            weights = isometries.mul_(layer.factor)
            numbers = {
                "norm ratio": float(_norm(weights) / _norm(layer.view)),
                "matrices": layer.count,
                "iterations": int(taken.max()),
                "deviation": float(deviation.max()),
            }
            report = NumbersReport(layer.entry.name, layer.entry.kind, numbers)
            yield layer.entry.name, weights.mT if layer.is_wide else weights, report


def _polar_(w: Tensor, tolerance: float, max_iterations: int) -> tuple[Tensor, int]:
    """W <- W (W^T W)^(-1/2) for tall matrices (batch, m, n), in place, by scaled Newton-Schulz iteration.

    X <- rho X (3 I - rho^2 X^T X) / 2 with rho^2 = 3 / (1 + l + l^2) takes singular values in [l, 1] into [l', 1], the
    largest l' that a cubic can reach (Chen and Chow 2014); rho = 1 is Newton-Schulz as the paper has it, which rho
    tends to as l' does to 1.

    Returns:
        ||X^T X - I||_F / sqrt(n) of each matrix, and the number of iterations.
    """
    if w.shape[-2] >= TALL * w.shape[-1] and w[0].numel() >= CHUNK:
        q, r = torch.linalg.qr(w)  # W = Q R has the polar factor of R behind the isometry Q
        outcome = _polar_(r, tolerance, max_iterations)
        torch.bmm(q, r, out=w)
        return outcome
    x, tiny = _largest_one(w), torch.finfo(w.dtype).tiny
    rows = (x.mT @ x).abs().sum(-1, keepdim=True)
    x /= rows.amax(-2, keepdim=True).clamp_min(tiny).sqrt()  # >= the largest singular value
    low = LOWEST
    for iteration in range(max_iterations + 1):
        excess, deviation = _excess(x)
        if iteration == max_iterations or float(deviation.max()) <= tolerance:
            break
        rho = math.sqrt(3 / (1 + low + low**2))
        x = torch.baddbmm(x, x, excess, beta=rho * (3 - rho**2) / 2, alpha=-(rho**3) / 2)
        low = rho * low * (3 - rho**2 * low**2) / 2
    w.copy_(x)
    return deviation, iteration


def _exactly_polar_(w: Tensor) -> tuple[Tensor, int]:
    """W <- U V^T of W = U S V^T for tall matrices (batch, m, n), in place; directions without length stay without.

    Returns:
        ||X^T X - I||_F / sqrt(n) of each matrix, and 0 iterations.
    """
    u, s, vt = torch.linalg.svd(w if w.is_mps else w.double(), full_matrices=False)
    kept = s > s.amax(-1, keepdim=True) * w.shape[-2] * torch.finfo(w.dtype).eps
    lives = w.any(-1, keepdim=True) & w.any(-2, keepdim=True)  # so that dead units stay exactly 0
    w.copy_((u * kept[..., None, :]) @ vt * lives)
    return _excess(w)[1], 0


def _as_published_(w: Tensor, iterations: int) -> tuple[Tensor, int]:
    """X <- (3 X - X X^T X) / 2 from W / ||W||_F for tall matrices (batch, m, n), in place, so many times.

    Returns:
        ||X^T X - I||_F / sqrt(n) of each matrix, and the number of iterations.
    """
    x = _largest_one(w)
    x /= x.norm(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    for _ in range(iterations):
        x = torch.baddbmm(x, x, x.mT @ x, beta=1.5, alpha=-0.5)
    w.copy_(x)
    return _excess(w)[1], iterations


def _largest_one(w: Tensor) -> Tensor:
    """The matrices, each divided by its largest weight, so that no square overflows or vanishes."""
    return w / w.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)


def _excess(x: Tensor) -> tuple[Tensor, Tensor]:
    """X^T X - I of each matrix, and its norm / sqrt(n)."""
    excess = x.mT @ x
    excess.diagonal(dim1=-2, dim2=-1).sub_(1)
    return excess, excess.norm(dim=(-2, -1)) / math.sqrt(x.shape[-1])


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor.cpu() if tensor.is_mps else tensor, dtype=torch.float64)
    return norm


def _sentences(reports: Sequence[NumbersReport], tolerance: float, variant: str) -> tuple[list[str], list[str]]:
    """Notes, and a warning if some matrices are not isometries."""
    matrices, taken, deviations = (
        [report.numbers[title] for report in reports] for title in ("matrices", "iterations", "deviation")
    )
    how = "solved exactly" if variant == "polar" else f"{min(taken)} to {max(taken)} iterations"
    notes = [f"{sum(matrices):,} matrices, {how}, deviation at most {max(deviations):.1e}"]
    warnings = []
    short = sum(deviation > tolerance for deviation in deviations)
    if short:
        after = "" if variant == "polar" else f" after {max(taken)} iterations"
        full_rank = "as matrices that are not of full rank (dead units) cannot be"
        why = "as large square matrices are then" if variant == "published" else full_rank
        furthest = reports[deviations.index(max(deviations))].name
        warnings.append(
            f"{counted(short, 'parameter')} not isometric{after}, {why}; furthest is {furthest}, {max(deviations):.2g}"
        )
    return notes, warnings
