"""The units of a network: one output of a layer each, with all its incoming and all its outgoing weights.

They are read from what one forward pass computes, not from the order of modules, so branches, sums, gates,
concatenations and attention are followed as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.batches import tensors_in
from warmstart.errors import InputError
from warmstart.layers.left_alone import LeftAlone
from warmstart.layers.parts import Part
from warmstart.layers.recording import Kind, Place, Producer, Record, Value
from warmstart.layers.tracing import Trace
from warmstart.network import eval_mode, saved_buffers
from warmstart.undo import afterwards, on_failure


@dataclass(frozen=True, eq=False)
class Reading:
    """Where a layer's activations can be read: in a tensor that a module takes or returns."""

    module: str
    call: int
    """The number of the module's call within a forward pass, from 0: one ReLU may serve twice."""
    of_input: bool
    number: int
    """Which of the tensors that it takes or returns, from 0."""
    axis: int
    at: Tensor
    """(units, slots): where each unit lies along that dimension."""

    def of(self, tensor: Tensor) -> Tensor:
        """The activations (rows, units), a copy, of that tensor: a row for each example and position."""
        rows = tensor.detach().movedim(self.axis, -1).flatten(0, -2)
        found: Tensor = rows.index_select(1, self.at.flatten().to(tensor.device)).unflatten(1, tuple(self.at.shape))
        return found.squeeze(2) if found.size(2) == 1 else found.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one layer."""

    layer: str
    """The module's name; behind a dot that of the weight where a module has several."""
    count: int
    incoming: tuple[Part, ...]
    bias: Part | None
    norms: tuple[Part, ...]
    """Parameters and running statistics of norm layers, and other factors, that units pass before they are read."""
    outgoing: tuple[Part, ...]
    """All weights that read them."""
    shared_with: tuple[str, ...]
    """Layers whose outputs are added to these or multiplied with them: a residual stream, a gate. The layer itself is
    among them where its own outputs meet, as the halves do in `nn.GLU`."""
    gated_with: tuple[str, ...]
    """Those of `shared_with` that are only multiplied with them."""
    coupled_by: tuple[str, ...]
    """Layers that normalise units together: there a unit without outgoing weights still changes what others give."""
    is_output: bool
    """Whether the network's output has them in it, or nothing reads them."""
    activation: Reading | None
    """Where they can be watched; None where no module takes or returns them (inside `nn.MultiheadAttention`)."""

    @property
    def redrawable(self) -> bool:
        """Whether new incoming and zero outgoing weights make new units of them: never true of the output."""
        return not self.is_output

    @property
    def private(self) -> bool:
        """Whether they hold this layer's outputs alone."""
        return not self.shared_with


def units(model: nn.Module, run: Callable[[], object]) -> tuple[list[Units], list[LeftAlone]]:
    """Find the units of a network by following one forward pass on a small batch, such as two examples.

    ``run`` performs the pass and returns its output or a loss. It runs in eval mode and without gradients, and the
    network's state is restored.

    Returns:
        The layers with units, in the order in which they run, and what is left alone with its reason.

    Raises:
        InputError: If no layer has units that could be redrawn.
    """
    in_use = torch.cuda.is_initialized()
    fast = torch.backends.mha.get_fastpath_enabled()
    trace = Trace(model)
    fused = torch.backends.mha.set_fastpath_enabled
    with afterwards(partial(fused, fast)), afterwards(saved_buffers(model)):
        fused(False)  # it computes a whole encoder layer in one operation
        devices = range(torch.cuda.device_count() if in_use else 0)
        with eval_mode(model), torch.no_grad(), torch.random.fork_rng(devices=devices):
            outputs = trace.run(run)
    found, left = _Sorted(model, trace, outputs).layers()
    if not any(layer.redrawable for layer in found):
        reasons = [f"{entry.name}: {entry.reason}" for entry in left]
        reasons += [f"{layer.layer}: it feeds the output" for layer in found]
        why = "; ".join(reasons[:4]) or "run computed nothing with the model's weights"
        raise InputError(
            f"the model has no units that could be redrawn ({why}); it needs a layer whose output another layer reads"
        )
    return found, left


@contextmanager
def watch(model: nn.Module, layers: Iterable[Units]) -> Iterator[dict[str, Tensor]]:
    """Read the activations of units while the model runs, as `watch_until` does, until the block ends.

    Yields:
        By layer, the activations of the latest forward pass.
    """
    with ExitStack() as stack:
        on_failure(stack.close)
        yield watch_until(stack, model, layers)


def watch_until(stack: ExitStack, model: nn.Module, layers: Iterable[Units]) -> dict[str, Tensor]:
    """Read the activations of units while the model runs, in train mode and with gradients too.

    Layers whose activation is None are skipped. The model may be another one of the same structure.

    Returns:
        By layer, the activations of the latest forward pass: (rows, units), a row for each example and position,
        detached. They are taken behind the activation function where a module computes it, else where the next layer
        reads them. Until ``stack`` is closed hooks write into it.
    """
    seen: dict[str, Tensor] = {}
    wanted: dict[str, list[tuple[Reading, str]]] = {}
    for layer in layers:
        if layer.activation is not None:
            wanted.setdefault(layer.activation.module, []).append((layer.activation, layer.layer))
    calls: dict[str, int] = {}

    def hooks(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def note(value: Any, call: int, of_input: bool) -> None:
            for reading, layer in wanted[name]:
                if reading.call == call and reading.of_input == of_input:
                    seen[layer] = reading.of(list(tensors_in(value))[reading.number])

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            note([*args, *kwargs.values()], calls.get(name, 0), of_input=True)

        def after(module: nn.Module, args: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            note(output, calls[name] - 1, of_input=False)

        return before, after

    stack.callback(model.register_forward_pre_hook(lambda *_: calls.clear()).remove)
    for name in wanted:
        before, after = hooks(name)
        module = model.get_submodule(name)
        stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(after).remove)
    return seen


class _Sorted:
    """The records of a trace, sorted by layer."""

    def __init__(self, model: nn.Module, trace: Trace, outputs: frozenset[int]) -> None:
        self._trace = trace
        self._frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        self._parameters = trace.views.parameters
        self._names = _layer_names(trace.producers)
        self._ancestors = trace.labels.ancestors
        self._maker = {
            number: producer
            for producer, made in enumerate(trace.producers)
            for number in made.table[made.table > 0].tolist()
        }
        self._outputs = self._all_ancestors(outputs)
        self._left: dict[int, str] = {}
        for number, reason in trace.labels.left.items():
            for ancestor in self._ancestors[number]:
                self._left.setdefault(ancestor, reason)
        self._coupled: list[set[str]] = [set() for _ in trace.producers]
        for number, where in trace.labels.coupled.items():
            for ancestor in self._ancestors[number]:
                self._coupled[self._maker[ancestor]] |= where
        self._records = self._records_by_layer()
        self._summed, self._multiplied = self._shared()

    def layers(self) -> tuple[list[Units], list[LeftAlone]]:
        """All layers with units, and what is left alone."""
        found, left = [], []
        for number, producer in enumerate(self._trace.producers):
            name = self._names[number]
            every = producer.table[producer.table > 0].tolist()
            ids = [one for one in every if one not in self._left]
            layer = self._units(number, ids) if ids else None
            used = {part.name for part in (*layer.incoming, *layer.outgoing)} if layer else set()
            frozen = sorted(used & self._frozen)
            if producer.embedding:
                left.append(LeftAlone(name, "an embedding looks its outputs up, so it has no incoming weights"))
                continue
            if len(ids) < len(every):
                reason = next(self._left[one] for one in every if one in self._left)
                some = f"{len(every) - len(ids)} of its {len(every)} outputs: " if ids else ""
                left.append(LeftAlone(name, some + reason))
            if frozen:
                left.append(LeftAlone(name, f"{frozen[0]} is frozen (requires_grad is False)"))
            elif layer is not None:
                found.append(layer)
        return found, left + self._unread()

    def _units(self, number: int, ids: list[int]) -> Units:
        unit_of = {one: unit for unit, one in enumerate(ids)}
        parts: dict[Kind, list[Part]] = {"incoming": [], "bias": [], "norm": [], "outgoing": []}
        readers: list[Record] = []
        for record, pairs in self._records[number]:
            held = [(unit_of[one], slot) for one, slot in pairs if one in unit_of]
            if not held or (record.kind in ("bias", "norm") and record.name in self._frozen):
                continue
            part = self._part(record, held, len(ids))
            known = any(
                part.name == other.name and part.ranges == other.ranges and torch.equal(part.at, other.at)
                for other in parts[record.kind]
                if part.dims == other.dims
            )
            if not known:
                parts[record.kind].append(part)
            if record.kind == "outgoing":
                readers.append(record)
        read = {one for record in readers for label in record.ids.tolist() for one in self._ancestors[label]}
        summed, multiplied = self._summed[number], self._multiplied[number]
        biases = parts["bias"]
        return Units(
            layer=self._names[number],
            count=len(ids),
            incoming=tuple(parts["incoming"]),
            bias=biases[0] if biases else None,
            norms=(*biases[1:], *parts["norm"]),
            outgoing=tuple(parts["outgoing"]),
            shared_with=tuple(self._names[other] for other in sorted(summed | multiplied)),
            gated_with=tuple(self._names[other] for other in sorted(multiplied - summed)),
            coupled_by=tuple(sorted(self._coupled[number])),
            is_output=not self._outputs.isdisjoint(unit_of) or not read >= unit_of.keys(),
            activation=self._reading(unit_of, readers),
        )

    def _part(self, record: Record, held: Sequence[tuple[int, int]], count: int) -> Part:
        """The slots of a record by unit."""
        unit, slot = torch.tensor(sorted(held)).unbind(1)
        sizes = torch.bincount(unit, minlength=count)
        position = torch.arange(len(unit)) - (sizes.cumsum(0) - sizes)[unit]
        at = torch.full((count, int(sizes.max()), *record.at.shape[1:]), -1)
        at[unit, position] = record.at[slot]
        at = at.flatten(1, 2)
        parameter = self._parameters.get(record.name)
        return Part(record.name, record.dims, at if parameter is None else at.to(parameter.device), record.ranges)

    def _reading(self, unit_of: dict[int, int], readers: Iterable[Record]) -> Reading | None:
        """The first place behind an activation function, else where the first reader takes the units."""
        behind: list[Place] = []
        taken: list[Place] = []
        elsewhere: list[Place] = []
        for record in readers:
            chain: list[Value] = [] if record.value is None else [record.value]
            for value in chain:
                if value.place is not None:
                    (behind if value.nonlinear else elsewhere).append(value.place)
                sources = () if value.nonlinear else value.sources
                chain += [source for source in sources if all(source is not other for other in chain)]
            taken += [record.taken] if record.taken is not None else []
        for place in (*behind, *taken, *elsewhere):
            at = self._positions(place, unit_of)
            if at is not None:
                return Reading(place.module, place.call, place.of_input, place.number, place.axis, at)
        return None

    def _positions(self, place: Place, unit_of: dict[int, int]) -> Tensor | None:
        """Each unit's indices (units, slots) along a place's dimension; None unless all have equally many."""
        at: list[list[int]] = [[] for _ in unit_of]
        for position, label in enumerate(place.ids.tolist()):
            for one in self._ancestors[label] if label > 0 else ():
                if one in unit_of:
                    at[unit_of[one]].append(position)
        sizes = {len(positions) for positions in at}
        return torch.tensor(at) if len(sizes) == 1 and sizes != {0} else None

    def _records_by_layer(self) -> list[list[tuple[Record, list[tuple[int, int]]]]]:
        """For each producer, the records of its units with (id, slot) pairs."""
        found: list[list[tuple[Record, list[tuple[int, int]]]]] = [[] for _ in self._trace.producers]
        for record in self._trace.records:
            pairs: dict[int, list[tuple[int, int]]] = {}
            for slot, label in enumerate(record.ids.tolist()):
                for one in self._ancestors[label]:
                    pairs.setdefault(self._maker[one], []).append((one, slot))
            for producer, held in pairs.items():
                found[producer].append((record, held))
        return found

    def _shared(self) -> tuple[list[set[int]], list[set[int]]]:
        """For each producer, those whose outputs are added to its units, and those whose are multiplied with them."""
        summed: list[set[int]] = [set() for _ in self._trace.producers]
        multiplied: list[set[int]] = [set() for _ in self._trace.producers]
        done = set()
        for parents, product in self._trace.labels.meetings:
            ids = [self._all_ancestors(side) for side in parents]
            sides = tuple(frozenset(self._maker[one] for one in side) for side in ids)
            every, together = frozenset().union(*ids), frozenset().union(*sides)
            # Outputs of one layer meet each other, one to one.
            twice = len(every) > len(together) and all(len(side) == 1 for side in parents)
            if (sides, product, twice) in done:
                continue
            done.add((sides, product, twice))
            for side in sides:
                for producer in side:
                    with_it = (together - side if product else together) - {producer}
                    (multiplied if product else summed)[producer] |= with_it
            if twice:
                for producer, count in Counter(self._maker[one] for one in every).items():
                    (multiplied if product else summed)[producer] |= {producer} if count > 1 else set()
        return summed, multiplied

    def _unread(self) -> list[LeftAlone]:
        """Parameters, other than vectors, that are no weights of a layer in this forward pass."""
        known = {record.name for record in self._trace.records}
        unread = [name for name, p in self._parameters.items() if name not in known and p.dim() > 1]
        used = self._trace.used
        return [
            LeftAlone(
                name, f"{used[name]} takes it, not as a layer's weight" if name in used else "run does not use it"
            )
            for name in unread
        ]

    def _all_ancestors(self, ids: Iterable[int]) -> frozenset[int]:
        return frozenset(ancestor for number in ids for ancestor in self._ancestors[number])


def _layer_names(producers: Sequence[Producer]) -> list[str]:
    """The modules' names, with the weight's name where a module has several."""
    layers = [producer.layer for producer in producers]
    return [
        producer.layer
        if layers.count(producer.layer) == 1 and producer.layer
        else f"{producer.layer}.{producer.weight.rpartition('.')[2]}".lstrip(".")
        for producer in producers
    ]
