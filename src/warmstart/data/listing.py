"""From a list of encoded images and labels to a data set: what is held out, what is left out, where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress

import torch
from torch import Tensor

from warmstart.data.images import ImageData
from warmstart.data.train_and_test import held_out
from warmstart.decoding.cache import decoded_on_disk, where_to_decode
from warmstart.decoding.decode import Encoded, ImageStack, decode_images
from warmstart.decoding.wanted import Wanted
from warmstart.wording import printable


@dataclass(frozen=True)
class Listing:
    """A data set whose images are not decoded yet."""

    name: str
    where: str
    labels: Tensor
    """int64 (N,), of the training part."""
    test_labels: Tensor | None
    """None where there is no test part."""
    classes: Sequence[str]
    encoded: Callable[[], Iterable[Encoded]]
    """Reads all images, in any order; the training part's places come first."""
    sources: Callable[[], Iterable[object]]
    """Names, sizes and times of change of all that is read."""
    arrived: Sequence[str] | None = None
    """Of the training part: when each example arrived."""
    notes: Sequence[str] = field(default=())

    def read(self, wanted: Wanted) -> ImageData:
        """Decode the images, the training part first; without a test part a fifth of each class is held out."""
        order, cut = self._order()
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        places: list[int] = place.tolist()

        def encoded() -> Iterator[Encoded]:
            return ((places[index], name, read) for index, name, read in self.encoded())

        cache = where_to_decode(encoded, len(order), wanted)
        if cache is None:
            stack, file = ImageStack(len(order), wanted.progress), None
            decode_images(encoded, stack, wanted)
            notes, images = stack.check(self.where, wanted.skip_unreadable), stack.images()
        else:
            key = (wanted.size, wanted.fit, places, *self.sources())
            stack, notes, images, file = decoded_on_disk(cache, key, encoded, len(order), self.where, wanted)
        labels = self.labels if self.test_labels is None else torch.cat([self.labels, self.test_labels])
        kept = torch.ones(len(order), dtype=torch.bool)
        kept[list(stack.unreadable)] = False
        labels, train = labels[order][kept], int(kept[:cut].sum())
        arrived = None
        if self.arrived is not None:
            arrived = tuple(compress((self.arrived[index] for index in order[:cut].tolist()), kept[:cut].tolist()))
        return ImageData(
            printable(self.name),
            images[:train],
            labels[:train],
            images[train:],
            labels[train:],
            tuple(map(printable, self.classes)),
            arrived,
            tuple(map(printable, (*self.notes, *notes))),
            file,
        )

    def _order(self) -> tuple[Tensor, int]:
        """All places, those of the training part first, and how many these are."""
        if self.test_labels is not None:
            return torch.arange(len(self.labels) + len(self.test_labels)), len(self.labels)
        out = held_out(self.name, self.labels)
        return torch.cat([(~out).nonzero(), out.nonzero()]).flatten(), int((~out).sum())
