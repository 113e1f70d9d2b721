"""What is measured: a network on some examples, and what several measures need of it, computed once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from warmstart.batches import equal_parts, examples_in, micro_batches, to_device
from warmstart.diagnostics.hessian import largest_eigenvalue
from warmstart.errors import InputError
from warmstart.gradient_pass import gradient_pass, scalar_loss
from warmstart.layers.matrices import embeddings, rows_of
from warmstart.layers.neurons import each_parameter, rule_of
from warmstart.layers.norms import batch_norms, is_norm
from warmstart.layers.output import output_layer
from warmstart.layers.recalibration import measure_norms_
from warmstart.layers.units import Units, units, watch
from warmstart.losses import ForwardLoss
from warmstart.network import eval_mode, saved_buffers
from warmstart.undo import afterwards

_LARGEST = 128
"""Examples a pass."""
SAMPLE, LEAST_SAMPLES = 8, 4
"""Examples of which a gradient is taken to see how gradients spread, and how many gradients that needs."""
CURVED, CURVED_PIECE = 512, 32
"""About so many examples are read for the Hessian, and so many at a time: a graph of gradients is large."""
_STATISTICS_OF, _PART = 2000, 500
"""About so many examples are read for batch-norm statistics, so many at a time."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradient of a mean loss."""

    mean: Mapping[str, Tensor]
    """By parameter, of all trainable ones that the loss reaches."""
    squared_norm: float
    """||g||^2"""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, the examples that it is measured on, and what it was at first; it is never changed."""

    model: nn.Module
    batches: Sequence[Any]
    """Of new examples, on any device."""
    forward_loss: ForwardLoss
    previous: Sequence[Any] = ()
    """Of earlier ones."""
    initial: Mapping[str, Tensor] | None = None
    """The network's first weights, by name."""
    rates: Mapping[nn.Parameter, float] | None = None
    """Each parameter's learning rate."""
    grows_with_gradient: bool = True
    """Whether the optimizer's updates are proportional to gradients, as SGD's are and AdamW's are not."""
    recalibrated: bool = False
    """Whether batch norm has statistics of these examples, not the running ones, while anything is measured."""

    @cached_property
    def _layers(self) -> dict[str, tuple[nn.Module, str, Tensor]]:
        """Layer, name there and weight, by the weight's name: no biases, norm layers or embeddings."""
        looked_up = embeddings(self.model)
        found = {
            name: (layer, key, parameter.detach())
            for name, layer, key, parameter in each_parameter(self.model)
            if parameter.dim() > 1 and rule_of(layer) is not None and not is_norm(layer) and layer not in looked_up
        }
        if not found:
            raise InputError("the network has no Linear or Conv layer")
        for name, (_, _, weight) in found.items():
            if not bool(weight.isfinite().all()):
                raise InputError(f"{name} holds NaN or infinite weights")
        return found

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The weights of layers, by name, without biases, norm layers and embeddings."""
        return {name: weight for name, (_, _, weight) in self._layers.items()}

    @cached_property
    def singular_values(self) -> dict[str, Tensor]:
        """Those of each weight as a matrix (outputs, inputs x kernel), the largest first, in fp64.

        Groups, and projections that lie in one weight, are matrices of their own, whose values stand together.
        """
        return {name: _singular_values(*layer) for name, layer in self._layers.items()}

    @cached_property
    def _all_units(self) -> list[Units]:
        batch = next(micro_batches(self._on_device(self.batches[-1]), 2))[0]
        return units(self.model, lambda: self.forward_loss(self.model, batch))[0]

    @cached_property
    def normalised(self) -> set[str]:
        """The weights whose outputs pass a norm layer before another layer reads them."""

        def is_of_norm(name: str) -> bool:
            return is_norm(self.model.get_submodule(name.rpartition(".")[0]))

        followed = [
            layer for layer in self._all_units if layer.coupled_by or any(is_of_norm(part.name) for part in layer.norms)
        ]
        return {part.name for layer in followed for part in layer.incoming}

    @cached_property
    def units(self) -> list[Units]:
        """The units of all layers but the output; of layers that are read at one place, as in a sum, the first's."""
        once: dict[Any, Units] = {}
        for layer in self._all_units:
            if layer.redrawable and (place := layer.activation) is not None:
                where = place.module, place.call, place.of_input, place.number, tuple(place.at.flatten().tolist())
                once.setdefault(where, layer)
        return list(once.values())

    @cached_property
    def loudness(self) -> dict[str, Tensor]:
        """Mean |activation| of each unit over the new examples and all positions: layer -> (units,)."""
        sums: dict[str, Tensor] = {}
        rows: dict[str, int] = {}
        with self._settled(), eval_mode(self.model), torch.no_grad(), watch(self.model, self.units) as seen:
            for batch in self._pieces(self.batches):
                self.forward_loss(self.model, batch)
                for layer, values in seen.items():
                    sums[layer] = sums.get(layer, 0.0) + values.abs().sum(0, dtype=torch.float64)
                    rows[layer] = rows.get(layer, 0) + len(values)
        means = {layer: (total / rows[layer]).float() for layer, total in sums.items()}
        for layer, mean in means.items():
            if not bool(mean.isfinite().all()):
                raise InputError(f"the activations of {layer} are not finite")
        return means

    @cached_property
    def features(self) -> Tensor:
        """What the output layer is given for new examples, and for earlier ones if these are too few: (N, features)."""
        found: list[Tensor] = []
        with self._settled(), gradient_pass(self.model) as running:
            batch = next(micro_batches(self._on_device(self.batches[-1]), 2))[0]
            _, layer = output_layer(self.model, self.forward_loss(self.model, batch))
            running.drop_caches()

            def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
                found.append(inputs[0].detach().flatten(1).cpu())

            handle = layer.register_forward_pre_hook(keep)
            try:
                with torch.no_grad():
                    for piece in self._pieces(self.batches):
                        self.forward_loss(self.model, piece)
                    if found and sum(map(len, found)) < found[0].size(1):
                        for piece in self._pieces(self.previous):
                            self.forward_loss(self.model, piece)
            finally:
                handle.remove()
        if not found:
            raise InputError("the output layer is given no tensor by position")
        features = torch.cat(found)
        if not bool(features.isfinite().all()):
            raise InputError("the features are not finite")
        return features

    @cached_property
    def feature_values(self) -> Tensor:
        """The singular values of the features, the largest first, in fp64."""
        examples, number = self.features.shape
        if examples < number:
            raise InputError(f"{examples} examples cannot show the rank of {number} features: give as many")
        return singular_values(self.features.double()).flip(0)

    @cached_property
    def new_gradients(self) -> Gradients:
        """On the new examples."""
        return self._gradients(self.batches)

    @cached_property
    def previous_gradients(self) -> Gradients | None:
        """On the earlier ones; None if there are none."""
        return self._gradients(self.previous) if self.previous else None

    def _gradients(self, batches: Sequence[Any]) -> Gradients:
        total: dict[str, Tensor] = {}
        examples = 0
        with self._settled(), gradient_pass(self.model) as running:
            for batch in batches:
                count = examples_in(batch)
                for piece, part in micro_batches(batch, _LARGEST):
                    running.backward(self._loss(piece) * part)
                own = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
                for name, gradient in own.items():
                    total[name] = total.get(name, 0.0) + count * gradient.double()
                examples += count
                self.model.zero_grad(set_to_none=True)
        if not total:
            raise InputError("the loss reaches no trainable parameter")
        mean = {name: (gradient / examples).float() for name, gradient in total.items()}
        squared = sum(float(gradient.double().square().sum()) for gradient in mean.values())
        if not math.isfinite(squared):
            raise InputError("the gradient is not finite")
        return Gradients(mean, squared)

    @cached_property
    def mean_squared_norm(self) -> float:
        """E ||g_B||^2 of gradients g_B of `SAMPLE` examples each, of some `CURVED` of the new ones."""
        pieces = [piece for batch in self.batches for piece, _ in micro_batches(batch, SAMPLE)]
        pieces = [piece for piece in pieces if examples_in(piece) == SAMPLE]
        if len(pieces) < LEAST_SAMPLES:
            raise InputError(
                f"these batches hold {len(pieces)} times {SAMPLE} examples, which is too few for a spread: pass "
                f"{LEAST_SAMPLES} times as many or more, in batches of {SAMPLE} at least"
            )
        pieces = pieces[:: -(-len(pieces) * SAMPLE // CURVED)]
        squares = 0.0
        with self._settled(), gradient_pass(self.model) as running:
            for piece in pieces:
                running.backward(self._loss(piece))
                own = (p.grad for p in self.model.parameters() if p.grad is not None)
                squares += sum(float(gradient.double().square().sum()) for gradient in own)
                self.model.zero_grad(set_to_none=True)
        return squares / len(pieces)

    @cached_property
    def sharpness(self) -> float:
        """The eigenvalue of the largest absolute value of the loss's Hessian, on some `CURVED` of the new examples."""
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        pieces = [piece for batch in self.batches for piece, _ in micro_batches(batch, CURVED_PIECE)]
        pieces = pieces[:: -(-sum(map(examples_in, pieces)) // CURVED)]
        total = sum(map(examples_in, pieces))
        # PyTorch's fused attention has no second derivative.
        with self._settled(), gradient_pass(self.model), sdpa_kernel(SDPBackend.MATH):
            return largest_eigenvalue(
                lambda: ((self._loss(piece), examples_in(piece) / total) for piece in pieces), weights
            )

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """The network with the statistics that it is measured under; its own are put back at the end."""
        with afterwards(saved_buffers(self.model)):
            for buffer, values in self._statistics:
                buffer.copy_(values)
            yield

    @cached_property
    def _statistics(self) -> list[tuple[Tensor, Tensor]]:
        """Buffers of batch norm, each with its value over the examples; none where they are not recalibrated."""
        layers = [layer for layer in batch_norms(self.model) if layer.track_running_stats]
        if not self.recalibrated or not layers:
            return []
        parts = [part for batch in (*self.previous, *self.batches) for part in equal_parts(batch, _PART)]
        usable = [(part, count) for part, count in parts if count > 1]
        if not usable:
            raise InputError(
                'batch norm has no statistics of single examples: pass larger batches, or statistics="kept"'
            )
        spread = usable[:: -(-sum(count for _, count in usable) // _STATISTICS_OF)]
        with afterwards(saved_buffers(self.model)):
            examples = [part for part, _ in spread]
            measure_norms_(self.model, examples, self.forward_loss, _PART, at_least=2, full_precision=True)
            return [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]

    def _loss(self, batch: Any) -> Tensor:
        return scalar_loss(self.model, batch, self.forward_loss, next(self.model.parameters()).device)

    def _pieces(self, batches: Sequence[Any]) -> Iterator[Any]:
        pieces = chain.from_iterable(micro_batches(batch, _LARGEST) for batch in batches)
        return (self._on_device(piece) for piece, _ in pieces)

    def _on_device(self, batch: Any) -> Any:
        return to_device(batch, next(self.model.parameters()).device)


def _singular_values(layer: nn.Module, key: str, weight: Tensor) -> Tensor:
    rows = rows_of(layer, key, weight)
    blocks = (weight[None] if rows is None else rows).flatten(2).double()
    return singular_values(blocks).flatten().sort(descending=True).values


def singular_values(matrices: Tensor) -> Tensor:
    """The singular values of fp64 matrices (..., m, n), ascending: roots of the eigenvalues of the smaller Gram matrix.

    It takes a tenth of the time of `svdvals` where one side is much the larger. Rounding moves an eigenvalue by some
    1e-16 of the largest, so a singular value sigma by 1e-16 sigma_1^2 / (2 sigma), and one near 0 by some 1e-8 sigma_1:
    below the rounding of fp32 weights themselves, 6e-8.

    Returns:
        (..., min(m, n)).
    """
    tall = matrices.size(-2) > matrices.size(-1)
    gram = matrices.mT @ matrices if tall else matrices @ matrices.mT
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp(min=0).sqrt()
