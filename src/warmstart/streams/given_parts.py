"""A stream given by the caller: the new data of each stage, as data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, TensorDataset

from warmstart.errors import InputError
from warmstart.streams.stream import Arrival


@dataclass(frozen=True)
class GivenParts:
    """Data sets with a length, one a stage, oldest first."""

    parts: Sequence[Dataset[Any]]

    @property
    def stages(self) -> int:
        """One for each part."""
        return len(self.parts)

    def arrival(self, number: int) -> Arrival[Dataset[Any]]:
        """All parts up to one to train on; nothing to test on, since the caller measures."""
        return Arrival(ConcatDataset(self.parts[:number]), self.parts[number - 1], None)


@dataclass(frozen=True)
class GivenStream:
    """What the caller gave: the same parts for all seeds, or a function of the seed."""

    given: Sequence[Any] | Callable[[int], Sequence[Any]]

    def __call__(self, seed: int) -> GivenParts:
        """The stream of one seed; InputError unless it is a sequence of data sets that are not empty."""
        parts: Any = self.given(seed) if callable(self.given) else self.given
        several = hasattr(parts, "__len__") and hasattr(parts, "__getitem__")
        if not several or isinstance(parts, (str, Mapping, Dataset, DataLoader)):
            raise InputError(f"the stream is a {type(parts).__name__}; give a list with the new data of each stage")
        return GivenParts([as_dataset(part, number) for number, part in enumerate(parts, start=1)])


def as_dataset(part: Any, number: int) -> Dataset[Any]:
    """One stage's new data as a data set: a map-style ``Dataset``, a sequence, or a tuple of tensors of one length."""
    if isinstance(part, tuple) and part and all(isinstance(tensor, Tensor) for tensor in part):
        if len({tensor.shape[:1] for tensor in part}) > 1 or part[0].dim() == 0:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in part)
            raise InputError(f"stage {number} of the stream holds tensors of the shapes {shapes}; the first dimension "
                             "counts the examples, and must be the same")  # fmt: skip
        part = TensorDataset(*part)
    no_sequence = isinstance(part, (str, Mapping, IterableDataset, DataLoader))
    if no_sequence or not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
        raise InputError(
            f"stage {number} of the stream is a {type(part).__name__}; give a map-style Dataset, a sequence of "
            "examples, or a tuple of tensors"
        )
    if len(part) == 0:
        raise InputError(f"stage {number}: 0 examples; remove it from the stream, or fill it")
    dataset: Dataset[Any] = part
    return dataset
