"""Examples whose images lie in a file: each batch is read when it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from warmstart.training.examples import Examples


@dataclass(frozen=True, eq=False)
class MappedExamples(Examples):
    """Some images of a file, in an order, with their labels; the images themselves are never copied as a whole."""

    order: Tensor
    """int64 (N,), positions in ``images``; they and the labels are on the CPU."""
    file: Path
    """What ``images`` is mapped from."""

    def at(self, index: Tensor | slice) -> Examples:
        """The examples at these positions."""
        return replace(self, order=self.order[index], labels=self.labels[index])

    def stored(self, index: slice) -> tuple[Tensor, Tensor]:
        """Some of the examples, read from the file."""
        begin, end = self._following
        after = 2 * index.stop - index.start
        self._announce(self.order[end if index.start == begin else index.start : after])
        self._following[:] = index.stop, after
        return self._in_order_of_pixels(self.images[self.order[index]]), self.labels[index]

    @cached_property
    def _following(self) -> list[int]:
        """Between which places the batch after the latest one lies: it has been announced with that."""
        return [0, 0]

    def _announce(self, places: Tensor) -> None:
        """Let the system read these images, and all at once: page by page it would read far more than they are."""
        if not hasattr(os, "posix_fadvise"):
            return
        size, begin = self.images[0].numel(), self.images.storage_offset()
        descriptor = os.open(self.file, os.O_RDONLY)
        try:
            for place in places.tolist():
                os.posix_fadvise(descriptor, begin + place * size, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
