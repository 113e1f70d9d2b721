"""Examples whose images lie in a file: each batch is read when it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from warmstart.training.augmentation import Augmentation
from warmstart.training.examples import Examples


@dataclass(frozen=True, eq=False)
class MappedExamples(Examples):
    """Some images of a file, in an order, with their labels; the images themselves are never copied as a whole."""

    order: Tensor
    """int64 (N,), positions in ``images``; they and the labels are on the CPU."""

    def at(self, index: Tensor | slice) -> Examples:
        """The examples at these positions."""
        return replace(self, order=self.order[index], labels=self.labels[index])

    def batch(self, index: slice, changes: Iterable[Augmentation] = ()) -> tuple[Tensor, Tensor]:
        """One batch, read from the file."""
        read = Examples(self.images[self.order[index]], self.labels[index], self.mean, self.std)
        return read.batch(slice(None), changes)
