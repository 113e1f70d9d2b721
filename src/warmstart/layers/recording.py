"""What one forward pass shows of units: which layers make them, which weights read them, where they can be watched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from warmstart.batches import tensors_in
from warmstart.layers.labels import Labels, narrowed
from warmstart.layers.views import View, Views, is_strided, storage_key

Kind = Literal["incoming", "bias", "norm", "outgoing"]


@dataclass
class Value:
    """What a storage holds between two writes to it."""

    sources: tuple[Value, ...] = ()
    """The same activations before they were pooled, normalised, moved, scaled or shifted."""
    nonlinear: bool = False
    """Whether it is the output of an activation function or a gate."""
    place: Place | None = None
    """The innermost module that returned it."""


@dataclass(frozen=True)
class Place:
    """A tensor that a module takes or returns, and whose units lie along one dimension."""

    module: str
    call: int
    """The number of the module's call within the forward pass, from 0."""
    of_input: bool
    number: int
    """Which of the tensors that it takes or returns, from 0."""
    axis: int
    ids: Tensor
    """The label at each index along that dimension."""


@dataclass(frozen=True)
class Record:
    """Elements of a parameter or buffer that belong to units, by slot."""

    kind: Kind
    name: str
    dims: tuple[int, ...]
    at: Tensor
    ranges: tuple[tuple[int, int, int], ...]
    ids: Tensor
    """The label of each slot; 0 for none."""
    value: Value | None = None
    """The activation that outgoing weights read."""
    taken: Place | None = None
    """Where a module takes that activation."""


@dataclass(frozen=True)
class Producer:
    """A layer, and the ids of its outputs."""

    layer: str
    weight: str
    table: Tensor
    """The id of each index of the weight's dimensions that outputs lie along; 0 where it has not been used."""
    embedding: bool


@dataclass
class _Shadow:
    """The labels of a storage."""

    storage: StorageWeakRef
    item_size: int
    labels: Tensor
    value: Value = field(default_factory=Value)

    def of(self, tensor: Tensor) -> Tensor:
        """The labels of a view, to be read and written."""
        return self.labels.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


@dataclass
class _Frame:
    """A running module."""

    module: nn.Module
    name: str
    call: int
    taken: list[tuple[Tensor, Value | None]]


class Recorder:
    """The labels of all activations in a forward pass, and the weights that read or make units.

    Each storage of an activation has a shadow with the label of each of its elements, so views and in-place writes need
    no rules of their own.
    """

    def __init__(self, model: nn.Module) -> None:
        self.labels = Labels()
        self.views = Views(model)
        self.records: list[Record] = []
        self.producers: list[Producer] = []
        self.used: dict[str, str] = {}
        """Parameter name -> the first operation that takes it."""
        self.names = {module: name for name, module in model.named_modules()}
        self._model = model
        self._shadows: dict[int, _Shadow] = {}
        self._made: dict[tuple[str, tuple[int, ...]], Producer] = {}
        self._frames: list[_Frame] = []
        self._calls: dict[nn.Module, int] = {}

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The forward pre-hook: a module starts."""
        if module is self._model:
            self._calls.clear()
        call = self._calls.get(module, 0)
        self._calls[module] = call + 1
        taken = [(tensor, self.value(tensor)) for tensor in tensors_in([*args, *kwargs.values()])]
        self._frames.append(_Frame(module, self.names[module], call, taken))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook: a module returns."""
        frame = self._frames.pop()
        for number, tensor in enumerate(tensors_in(output)):
            shadow = self._shadow(tensor)
            whole = shadow is not None and shadow.labels.numel() == tensor.numel()
            if shadow is not None and whole and shadow.value.place is None:
                shadow.value.place = self._place(frame, tensor, number, of_input=False)

    def _place(self, frame: _Frame, tensor: Tensor, number: int, *, of_input: bool) -> Place | None:
        """Where a tensor's units can be watched; None unless they lie along one dimension."""
        labels = self.read(tensor)
        if labels is None or tensor.dim() < 2:
            return None
        varying = [d for d in range(labels.dim()) if labels.size(d) > 1]
        single = [d for d in range(1, tensor.dim()) if tensor.size(d) == 1]
        for axis in sorted(varying, key=lambda d: d == 0) or single[:1]:
            found, several = self.labels.common(labels, [d for d in varying if d != axis])
            if not several.any():
                ids = found.flatten().expand(tensor.size(axis))
                return Place(frame.name, frame.call, of_input, number, axis, ids)
        return None

    def _shadow(self, tensor: Tensor) -> _Shadow | None:
        return self._shadows.get(storage_key(tensor)) if is_strided(tensor) else None

    def value(self, tensor: Tensor) -> Value | None:
        """What a tensor's storage holds, if it is labelled."""
        shadow = self._shadow(tensor)
        return None if shadow is None else shadow.value

    def read(self, tensor: Tensor) -> Tensor | None:
        """The labels of a tensor, of size 1 where they do not change; None if it has none."""
        shadow = self._shadow(tensor)
        if shadow is None or tensor.numel() == 0:
            return None
        if shadow.item_size != tensor.element_size():
            mixed = self.labels.mix(shadow.labels, "seeing complex numbers as real ones mixes its units")
            return torch.tensor(mixed).expand([1] * tensor.dim()) if mixed else None
        labels = narrowed(shadow.of(tensor))
        return labels.clone() if bool(labels.any()) else None

    def full(self, tensor: Tensor) -> Tensor:
        """The labels of a tensor in its shape; zeros if it has none."""
        labels = self.read(tensor)
        return torch.zeros(tensor.shape, dtype=torch.long) if labels is None else labels.expand(tensor.shape)

    def write(
        self, tensor: Tensor, labels: Tensor | None, sources: Sequence[Value | None] = (), *, nonlinear: bool = False
    ) -> None:
        """Label a tensor that has just been written; ``sources`` are the values that it was made from."""
        shadow = self._shadow(tensor)
        if shadow is None:
            if labels is None or not is_strided(tensor) or not bool(labels.any()):
                return
            if len(self._shadows) % 64 == 0:
                self._shadows = {key: kept for key, kept in self._shadows.items() if not kept.storage.expired()}
            storage = tensor.untyped_storage()
            size = storage.nbytes() // tensor.element_size()
            shadow = _Shadow(StorageWeakRef(storage), tensor.element_size(), torch.zeros(size, dtype=torch.long))
            self._shadows[storage._cdata] = shadow
        shadow.of(tensor).copy_(torch.tensor(0) if labels is None else labels)
        shadow.value = Value(tuple(source for source in sources if source is not None), nonlinear)

    def where(self) -> str:
        """The name of the innermost running module."""
        return self._frames[-1].name if self._frames else ""

    def weight(self, tensor: Tensor) -> View | None:
        """The parameter that a tensor shows, if it shows any."""
        view = self.views.find(tensor)
        return view if view is not None and view.name in self.views.parameters else None

    def is_of_innermost(self, view: View) -> bool:
        """Whether a parameter belongs to the innermost running module."""
        return bool(self._frames) and any(view.parameter is p for p in self._frames[-1].module._parameters.values())

    def _layer(self, view: View) -> str:
        """The innermost running module that owns a parameter, or else the owner by the parameter's name."""
        for frame in reversed(self._frames):
            if any(view.parameter is own for own in frame.module._parameters.values()):
                return frame.name
        return view.name.rpartition(".")[0]

    def _attach(
        self, kind: Kind, view: View, dims: Sequence[int], at: Tensor, ids: Tensor, read: Tensor | None
    ) -> None:
        """Record elements of a parameter as belonging to units; ``read`` is the activation that outgoing ones read."""
        ids = ids.flatten()
        if not bool((ids > 0).any()):
            return
        slots = view.slots(dims, at)
        value, taken = None, None
        if read is not None:
            value = self.value(read)
            taken = self._taken(value)
        self.records.append(
            Record(kind, slots.name, slots.dims, slots.at, slots.ranges, ids.clamp(min=0), value, taken)
        )

    def _taken(self, value: Value | None) -> Place | None:
        """Where a module takes a value, or one that it was moved or pooled from."""
        chain = [value] if value is not None else []
        for one in chain:
            chain += [source for source in one.sources if all(source is not other for other in chain)]
            if one.nonlinear:
                break
        for frame in reversed(self._frames):
            for number, (tensor, held) in enumerate(frame.taken):
                if held is not None and any(held is one for one in chain) and self.value(tensor) is held:
                    return self._place(frame, tensor, number, of_input=True)
        return None

    def consume(self, view: View, dims: Sequence[int], at: Tensor, ids: Tensor, read: Tensor) -> None:
        """Record that a weight reads units: one label a slot."""
        for label in ids.unique().tolist():
            if label < 0:
                mixture = self.labels.mixture(label)
                self.labels.leave(mixture.members, f"{mixture.what}, and {self._layer(view)} reads the result")
        self._attach("outgoing", view, dims, at, ids, read)

    def produce(self, view: View, dims: Sequence[int], at: Tensor, *, embedding: bool = False) -> Tensor:
        """The ids of a layer's outputs, one a slot; the same ones at each call."""
        slots = view.slots(dims, at)
        sizes = [view.parameter.size(d) for d in slots.dims]
        key = (slots.name, slots.dims)
        if key not in self._made:
            table = torch.zeros(math.prod(sizes), dtype=torch.long)
            self._made[key] = Producer(self._layer(view), slots.name, table, embedding)
            self.producers.append(self._made[key])
        table = self._made[key].table
        first = slots.at[:, 0, :]  # an output's weights may lie in several slots, and the first one names it
        where = torch.zeros(len(first), dtype=torch.long)
        for number, size in enumerate(sizes):
            where = where * size + first[:, number]
        missing = where[table[where] == 0]
        table[missing] = self.labels.new(len(missing))
        ids = table[where]
        self.records.append(Record("incoming", slots.name, slots.dims, slots.at, slots.ranges, ids))
        return ids

    def affine(self, kind: Kind, parameter: Tensor | None, tensor: Tensor) -> None:
        """Record that a vector which scales or shifts a labelled tensor belongs to its units."""
        labels = self.read(tensor)
        if parameter is None or labels is None or parameter.dim() == 0 or parameter.dim() > tensor.dim():
            return
        view = self.views.find(parameter.expand(tensor.shape))
        if view is None or (kind == "bias" and len(view.axes()) > 1):  # a position embedding, say
            return
        axes = view.axes()
        ids, _ = self.labels.common(labels, [d for d in range(tensor.dim()) if d not in axes])
        if axes or tensor.numel() == 1 or labels.numel() == 1:
            shape = [tensor.size(d) for d in axes]
            at = torch.cartesian_prod(*(torch.arange(size) for size in shape)) if axes else torch.zeros(1, 0)
            ids = ids.expand([tensor.size(d) if d in axes else 1 for d in range(tensor.dim())])
            self._attach(kind, view, axes, at.long().reshape(ids.numel(), 1, len(axes)), ids, None)
