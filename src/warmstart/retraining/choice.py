"""Which of the examples that were found arrive, and what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import torch

from warmstart.retraining.index import KnownFile
from warmstart.retraining.reading import Found
from warmstart.retraining.snapshots import Known, Snapshot, pixel_digest, split, taken


@dataclass(frozen=True)
class Choice:
    """What arrives, and what it replaces."""

    places: list[int]
    """In what was found."""
    withdrawn: set[bytes]
    """Digests of examples that come again under another class."""
    sides: Mapping[bytes, bool]
    """Digests of pixels that have arrived before -> whether they are held out."""


def examples(files: Mapping[str, KnownFile]) -> Counter[bytes]:
    """How often each example is in these files."""
    return Counter(one for file in files.values() for one in split(file.digests))


def chosen(found: Found, excess: Counter[bytes], tested: set[bytes]) -> list[int]:
    """The places of examples that have not arrived before, in their order.

    Args:
        found: What lies in the data folder.
        excess: How many more of each example there are than have arrived; copies are alike.
        tested: Digests of the pixels of --test, which do not arrive.

    Returns:
        Places in ``found``.
    """
    left, places = Counter(excess), []
    for place, one in enumerate(found.digests):
        if left[one] > 0 and not (tested and pixel_digest(found.images[place]) in tested):
            left[one] -= 1
            places.append(place)
    return places


def relabelled(
    found: Found, places: Sequence[int], present: Set[bytes], gone: Set[bytes], before: Sequence[Known]
) -> set[bytes]:
    """The digests of examples whose label was corrected: they are gone, and their pixels are there as another class.

    Args:
        found: What lies in the data folder.
        places: Of what arrives.
        present: The digests of all that lies there, and may.
        gone: Those of what is trained on and lies there no more.
        before: All that has arrived.

    Returns:
        Digests of ``gone``.
    """
    pixels = {pixel_digest(found.images[place]) for place in places}
    pixels |= {one.pixels for one in before if one.digest in present}
    return {one.digest for one in before if one.digest in gone and one.pixels in pixels}


def snapshot_of(
    found: Found, places: Sequence[int], place_of: Mapping[str, int], sides: Mapping[bytes, bool]
) -> Snapshot:
    """The examples at these places; ``place_of`` has the classes' numbers, ``sides`` those of pixels known before."""
    at = list(places)
    labels = torch.tensor([place_of[found.labels[place]] for place in at], dtype=torch.int64)
    return taken(found.images[at], labels, [found.digests[place] for place in at], sides)


def in_order(names: set[str]) -> list[str]:
    """Classes in the order of their names; numbers by their size."""
    return sorted(names, key=lambda name: (0, int(name), "") if name.lstrip("-").isdigit() else (1, 0, name))
