"""The stream of a data set of images: its arrivals, random or real, and what is tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from warmstart.data.images import ImageData
from warmstart.decoding.wanted import GIVEN
from warmstart.errors import InputError, require
from warmstart.streams.class_groups import class_groups
from warmstart.streams.folds import FOLDS, folds
from warmstart.streams.random_draws import random_draws
from warmstart.streams.real_order import in_real_order
from warmstart.streams.settings import CLASSES, RANDOM, StreamSettings, sizes_of
from warmstart.streams.shifts import Shift, shift_of
from warmstart.streams.stream import Arrival
from warmstart.wording import counted


@dataclass(frozen=True)
class Selection:
    """Some examples of one part of a data set."""

    part: Literal["train", "test"]
    index: Tensor | None
    """Their positions in the part, in order; None for all of it."""
    shift: Shift = field(default_factory=Shift)
    """How they differ from what they are in the data."""


@dataclass(frozen=True, eq=False)
class ImageStream:
    """The arrivals of one seed."""

    arrivals: Sequence[Tensor]
    """Positions in the training part; where each is tested by the next, one more than there are stages."""
    tested: Selection | None
    """None for the next arrival."""
    left_out: frozenset[int] = frozenset()
    """Classes that are in no stage, and so not tested."""
    tests_by_stage: Sequence[Selection] = ()
    """Where ``tested`` is not tested at once: what of it is, stage by stage."""
    shift: Callable[[int, int], Shift] | None = None
    """Where each stage is a task of its own, trained on alone: how, by its number and its examples."""

    @property
    def stages(self) -> int:
        """The number of arrivals that are trained on."""
        return len(self.arrivals) - (self.tested is None)

    def arrival(self, number: int) -> Arrival[Selection]:
        """All arrivals up to one stage, that stage's own, and what is tested."""
        new = self.arrivals[number - 1]
        test = self.tested or Selection("train", self.arrivals[number])
        if self.tests_by_stage:
            test = self.tests_by_stage[number - 1]
        if self.shift is None:
            return Arrival(Selection("train", torch.cat([*self.arrivals[:number]])), Selection("train", new), test)
        alone = Selection("train", new, shift := self.shift(number, len(new)))
        # Labels that are drawn can be known of no other images than those that are trained on.
        return Arrival(alone, alone, alone if shift.drawn is not None else replace(test, shift=shift))


def image_stream(data: ImageData, settings: StreamSettings, seed: int, *, validation: bool = False) -> ImageStream:
    """The stream of one seed.

    Args:
        data: The images.
        settings: What arrives when, and what is tested.
        seed: It decides random draws, which fifth is tested, and the order of what arrives at one time.
        validation: Whether it is a stream to tune on, without anything that the stream itself tests: tested is a fifth
            that is held out of what may arrive, or, where each arrival is tested by the next, the last stage is left
            out.

    Returns:
        The stream.

    Raises:
        InputError: If the numbers do not fit the data, it has one class only, or nothing is left to test.
    """
    _require_two_classes(data)
    pool, tested = _parts(data, settings, seed)
    arrivals = _arrivals(data, settings, pool, seed, beyond=int(tested is None))
    if validation and tested is None:
        enough = len(arrivals) > 3
        require(enough, f"{data.name}: tuning leaves out the last stage, so it needs 3 or more; raise --stages")
        arrivals = arrivals[:-1]
    elif validation:
        arrivals, tested = _held_out(data, settings, pool, arrivals, seed)
    trained = torch.cat(arrivals if tested else arrivals[:-1])
    test_labels = _labels(data, tested or Selection("train", arrivals[-1]))
    left_out = frozenset(test_labels.unique().tolist()) - frozenset(data.train_labels[trained].unique().tolist())
    if left_out and tested:
        tested = _without(data, tested, left_out)
    elif left_out:  # they are in the last arrival alone, which is tested and not trained on
        arrivals[-1] = _positions(data, _without(data, Selection("train", arrivals[-1]), left_out))
    if len(arrivals[-1]) == 0 or (tested is not None and len(_labels(data, tested)) == 0):
        strange = left_out.isdisjoint(data.train_labels.tolist())
        remedy = "its training part has none of them: check the labels" if strange else "raise --stages or --stage-size"
        raise InputError(f"{data.name}: no test example is of a class that is trained on; {remedy}")
    stream = ImageStream(arrivals, tested, left_out)
    if settings.order == CLASSES and tested is not None:
        stream = replace(stream, tests_by_stage=_of_seen_classes(data, stream, tested))
    if settings.shift is not None:
        pixels, classes, kind = data.train_images[0, 0].numel(), data.num_classes, settings.shift
        stream = replace(stream, shift=lambda number, n: shift_of(kind, seed, number, pixels, classes, n))
    return stream


def _parts(data: ImageData, settings: StreamSettings, seed: int) -> tuple[Tensor, Selection | None]:
    """The positions that may arrive, and what is tested."""
    everything, kind = torch.arange(len(data.train_labels)), settings.test
    if kind == "next":
        return everything, None
    if data.has_test_part and kind != "rotate":
        return everything, Selection("test", None)
    fold = folds(data.train_labels) == (0 if kind == "fixed" else seed % FOLDS)
    if not fold.any():
        sizes = f"{counted(len(data.train_labels), 'example')} of {counted(data.num_classes, 'class', 'classes')}"
        raise InputError(f"{data.name}: {sizes} are too few to test a fifth of each; add a test part or examples")
    return everything[~fold], Selection("train", everything[fold])


def _held_out(
    data: ImageData, settings: StreamSettings, pool: Tensor, arrivals: list[Tensor], seed: int
) -> tuple[list[Tensor], Selection]:
    """The arrivals without a fifth of the pool, and this fifth."""
    # Random draws are drawn from the rest if it suffices, so that stages keep their size.
    held = pool[folds(data.train_labels[pool]) == 0]
    rest = pool[~torch.isin(pool, held)]
    sizes = [len(arrival) for arrival in arrivals]
    if settings.order == RANDOM and _needed(settings, sizes, beyond=0) <= len(rest):
        kept = random_draws(data.train_labels, rest, sizes, seed)
    else:
        kept = [arrival[~torch.isin(arrival, held)] for arrival in arrivals]
    enough = len(held) > 0 and all(len(arrival) > 0 for arrival in kept)
    require(enough, f"{data.name}: too few examples to hold out a fifth for tuning; leave --tune out, or add examples")
    return kept, Selection("train", held)


def _arrivals(data: ImageData, settings: StreamSettings, pool: Tensor, seed: int, beyond: int) -> list[Tensor]:
    """All that arrives, ``beyond`` the stages the next arrival."""
    sizes, stages = sizes_of(settings, len(pool), beyond), settings.stages
    if settings.order == CLASSES:
        assert stages is not None  # StreamSettings fills them in
        return class_groups(data.name, data.train_labels, pool, stages + beyond, seed)
    if settings.order != RANDOM:
        if settings.order != GIVEN and data.arrived is None:
            raise InputError(f"{data.name}: there is no column '{settings.order}' to order by; leave it out")
        return in_real_order(data.name, data.arrived, pool, stages, beyond, sizes, seed)
    assert isinstance(sizes, list)  # StreamSettings fills stages and sizes in
    if (needed := _needed(settings, sizes, beyond)) > len(pool) or 0 in sizes:
        next_one = f" and the next of {sizes[-1]}" if beyond else ""
        every = len(data.train_labels)
        held_out = f" (of {every}; the others are held out)" if len(pool) < every else ""
        fits = _what_fits(len(pool), sizes, beyond) if len(set(sizes)) == 1 and sizes[0] else "change --stage-size"
        asked = f"{stages} stages of {settings.stage_size}{next_one} need"
        if settings.shift is not None and not beyond:
            asked, fits = "the largest stage needs", "lower --stage-size"
        raise InputError(f"{data.name} has {len(pool)} training examples{held_out}, but {asked} {needed}; {fits}")
    return random_draws(data.train_labels, pool, sizes, seed)


def _needed(settings: StreamSettings, sizes: Sequence[int], beyond: int) -> int:
    """How many examples random draws need: tasks draw from all of them, unless the next task's are to be unseen."""
    return max(sizes) if settings.shift is not None and not beyond else sum(sizes)


def _what_fits(available: int, sizes: Sequence[int], beyond: int) -> str:
    fits = []
    if (most := available // sizes[0] - beyond) > 0:
        fits.append(f"--stages {most}")
    if (largest := available // len(sizes)) > 0:
        fits.append(f"--stage-size {largest}")
    return f"{' or '.join(fits)} would fit" if fits else "ask for less"


def _require_two_classes(data: ImageData) -> None:
    if (data.train_labels == data.train_labels[0]).all():
        only = data.classes[int(data.train_labels[0])]
        raise InputError(f"{data.name} has one class only, '{only}', in its training part; give at least two")


def _labels(data: ImageData, chosen: Selection) -> Tensor:
    labels = data.train_labels if chosen.part == "train" else data.test_labels
    return labels if chosen.index is None else labels[chosen.index]


def _of_seen_classes(data: ImageData, stream: ImageStream, tested: Selection) -> list[Selection]:
    """What is tested of the classes that have arrived, stage by stage."""
    found, missing = [], set(data.train_labels.unique().tolist())
    for arrival in stream.arrivals:
        missing -= set(data.train_labels[arrival].unique().tolist())
        found.append(_without(data, tested, frozenset(missing)))
    if (bare := next((n for n, one in enumerate(found, start=1) if len(_labels(data, one)) == 0), None)) is not None:
        raise InputError(f"{data.name}: no test example is of a class that has arrived by stage {bare}; lower --stages")
    return found


def _positions(data: ImageData, chosen: Selection) -> Tensor:
    return torch.arange(len(_labels(data, chosen))) if chosen.index is None else chosen.index


def _without(data: ImageData, chosen: Selection, classes: frozenset[int]) -> Selection:
    kept = ~torch.isin(_labels(data, chosen), torch.tensor(sorted(classes)))
    return Selection(chosen.part, _positions(data, chosen)[kept])
