"""From a list of encoded images and labels to a data set: what is left out, where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import torch
from torch import Tensor

from warmstart.data.images import ImageData
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
    names: Sequence[str] = ()
    """Of the images, the training part's first, where each is a file."""
    layout: str = ""
    """How a folder was understood: ``list labels.csv``, ``class folders`` or ``class folders in train``."""

    def training_images(self, chosen: Container[str]) -> Listing:
        """Those of the training part alone whose files have these names; there may be none."""
        places = [place for place, name in enumerate(self.names[: len(self.labels)]) if name in chosen]
        renumbered = {place: number for number, place in enumerate(places)}
        return replace(
            self,
            labels=self.labels[places],
            test_labels=None,
            encoded=lambda: ((renumbered[at], name, read) for at, name, read in self.encoded() if at in renumbered),
            arrived=None if self.arrived is None else [self.arrived[place] for place in places],
            names=[self.names[place] for place in places],
        )

    def read(self, wanted: Wanted) -> ImageData:
        """Decode the images, the training part first."""
        labels = self.labels if self.test_labels is None else torch.cat([self.labels, self.test_labels])
        total, cut = len(labels), len(self.labels)
        cache = where_to_decode(self.encoded, total, wanted)
        if cache is None:
            stack, file = ImageStack(total, wanted.progress), None
            decode_images(self.encoded, stack, wanted)
            notes, images = stack.check(self.where, wanted.skip_unreadable), stack.images()
        else:
            key = (wanted.size, wanted.fit, *self.sources())
            stack, notes, images, file = decoded_on_disk(cache, key, self.encoded, total, self.where, wanted)
        kept = torch.ones(total, dtype=torch.bool)
        kept[list(stack.unreadable)] = False
        labels, train = labels[kept], int(kept[:cut].sum())
        return ImageData(
            printable(self.name),
            images[:train],
            labels[:train],
            images[train:],
            labels[train:],
            tuple(map(printable, self.classes)),
            None if self.arrived is None else tuple(compress(self.arrived, kept[:cut].tolist())),
            tuple(map(printable, (*self.notes, *notes))),
            file,
            stack.bits,
        )
