"""What is withdrawn by hand: not trained on or tested any more, erased if asked for; and what may come back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from warmstart.data.label_files import SUFFIXES as LISTS
from warmstart.decoding.wanted import EXACT, Wanted
from warmstart.errors import InputError, require
from warmstart.image_size import height_and_width
from warmstart.retraining import snapshots
from warmstart.retraining.call import changing
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.facts import Facts
from warmstart.retraining.index import Index
from warmstart.retraining.reading import SHARDS, Expected, find
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.snapshots import Known
from warmstart.retraining.state import StateFolder
from warmstart.serving.inputs import decode_files
from warmstart.serving.predicted_files import find_images, image_files
from warmstart.wording import counted

_AT_A_TIME = 1000


def withdraw(settings: NightSettings, what: Sequence[str], *, erase: bool = False) -> None:
    """Leave examples out from the next stage on, for ever; what lies in the data folder of them arrives no more.

    Args:
        settings: Of this call.
        what: Stages, all of whose arrivals are meant, and paths of images, wherever these lie: copies of what arrived,
            which are known by their pixels, whatever their class.
        erase: Also take their pixels out of the state.

    Raises:
        InputError: If none of a path's images has arrived, one cannot be read, a stage brought nothing, or too little
            would be left; nothing is changed.
    """
    with changing(settings) as (state, index, chronicle):
        arrived = _Arrived(state, index)
        digests = arrived.digests_of(what)
        used = [one for one in arrived.in_use() if one.example.digest in digests]
        left = [one for one in arrived.in_use() if one.example.digest not in digests]
        _require_enough(left, arrived.tested_apart)
        _say_what_is_withdrawn(chronicle, index, used, arrived.tested_apart)
        erased = _write_what_is_left(state, index, digests) if erase else {}
        if erased:
            chronicle.say("erased", f"erased from the data of {_stages(erased)}; their weights are as they were")
        with index.transaction():
            if used:
                index.reject_untrained("examples were withdrawn before it was trained")
            index.withdraw(index.next_stage(), {one.example.digest for one in used})
            index.refuse(digests)
            for number, (sha256, count) in erased.items():
                index.change_stage(number, data_sha256=sha256, arrived=count)
            index.add_events(chronicle.drain())
        state.finish_erasing(index)


def readmit(settings: NightSettings, what: Sequence[str]) -> None:
    """Let examples that were withdrawn arrive again, with the next call that finds them in the data folder.

    Args:
        settings: Of this call.
        what: As for `withdraw`; what was erased is known by paths alone.

    Raises:
        InputError: If nothing of a path or a stage is withdrawn; nothing is changed.
    """
    with changing(settings) as (state, index, chronicle):
        digests = _Arrived(state, index).digests_of(what) & index.refused()
        require(
            bool(digests), f"nothing of {', '.join(what)} is withdrawn in {state.path}; there is nothing to readmit"
        )
        text = f"{counted(len(digests), 'example')} readmitted: what lies in the data folder arrives with the next call"
        chronicle.say("readmitted", text, examples=len(digests))
        known = index.files().items()
        read_again = [path for path, file in known if not digests.isdisjoint(snapshots.split(file.digests))]
        with index.transaction():
            index.readmit(digests)
            index.set_files({}, read_again)
            index.add_events(chronicle.drain())


@dataclass(frozen=True)
class _Example:
    """One that has arrived."""

    stage: int
    example: Known


class _Arrived:
    """All that has arrived in a state."""

    def __init__(self, state: StateFolder, index: Index) -> None:
        facts = Facts.read(index)
        require(facts is not None, f"{state.path}: nothing has arrived yet")
        assert facts is not None
        self._state, self._index, self._facts = state, index, facts
        self.tested_apart = any(row.test_file for row in index.stages())
        """Whether all that arrives is trained on."""
        numbers = [row.number for row in index.stages() if row.arrived]
        self._all = [_Example(number, one) for number in numbers for one in snapshots.known([state.snapshot(number)])]

    def in_use(self) -> Iterator[_Example]:
        """What is not withdrawn."""
        withdrawn = self._index.withdrawn(self._index.next_stage())
        return (one for one in self._all if withdrawn.get(one.example.digest, 0) <= one.stage)

    def digests_of(self, what: Sequence[str]) -> set[bytes]:
        """The digests of stages and of images at paths."""
        return {digest for one in what for digest in (self._stage(one) if one.isdigit() else self._path(Path(one)))}

    def _stage(self, number: str) -> set[bytes]:
        found = {one.example.digest for one in self._all if one.stage == int(number)}
        brought = _stages(one.stage for one in self._all)
        require(bool(found), f"{self._state.path}: nothing of stage {number} is there; data came with {brought}")
        return found

    def _path(self, path: Path) -> set[bytes]:
        classes, there = self._index.classes(), {one.example.digest for one in self._all} | self._index.refused()
        count, found = 0, set()
        for images in self._images(path.expanduser()):
            count += len(images)
            found |= {snapshots.digest(image, name) for image in images for name in classes} & there
        require(bool(found), f"{path}: {counted(count, 'image')}, none of which has arrived in {self._state.path}")
        return found

    def _images(self, path: Path) -> Iterator[Tensor]:
        """Images at a path as they arrive, uint8 (N, C, H, W), some at a time."""
        facts = self._facts
        if path.is_file() and path.name.lower().endswith((*SHARDS, *LISTS)):
            wanted = Wanted(height_and_width(facts.image_size), facts.fit if facts.resized else EXACT, bits=facts.bits)
            yield find(str(path), {}, Expected(wanted, facts.channels, facts.whole_numbers)).images
            return
        files = iter(image_files(find_images([path])))
        while some := list(islice(files, _AT_A_TIME)):
            images, unreadable = decode_files(some, facts.card((), "", {}))
            if unreadable:
                raise InputError(next(iter(unreadable.values())))
            yield images


def _require_enough(left: Sequence[_Example], tested_apart: bool) -> None:
    """Raise InputError unless something is left to train on, and to test on."""
    sides = {one.example.held_out and not tested_apart for one in left}
    lacking = "train on" if False not in sides else "test on" if not (tested_apart or True in sides) else ""
    require(not lacking, f"that would leave nothing to {lacking}; begin with another --state instead")


def _say_what_is_withdrawn(chronicle: Chronicle, index: Index, used: Sequence[_Example], tested_apart: bool) -> None:
    if not used:
        chronicle.say("withdrawn", "all of it is withdrawn already")
        return
    stages = _stages(one.stage for one in used)
    text = (
        f"{counted(len(used), 'example')} of {stages} withdrawn: neither trained on nor tested from the next stage on"
    )
    chronicle.say("withdrawn", text, examples=len(used))
    trained = [one.stage for one in used if tested_apart or not one.example.held_out]
    current = index.current or 0
    if not trained or current < min(trained):
        return
    before = [
        row.number for row in index.stages() if row.state == "promoted" and row.kept and row.number < min(trained)
    ]
    how_many = counted(sum(stage <= current for stage in trained), "of them", "of them")
    instead = (
        f"--rollback {before[-1]} puts the newest into service that was not"
        if before
        else "so was each that is kept; --method cold lets the next stage begin from scratch"
    )
    chronicle.say("advice", f"the model in service, of stage {current}, was trained on {how_many}; {instead}")


def _stages(numbers: Iterable[int]) -> str:
    """Such as ``stage 3`` or ``stages 3, 7``."""
    found = sorted(set(numbers))
    return f"stage{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def _write_what_is_left(state: StateFolder, index: Index, digests: Set[bytes]) -> dict[int, tuple[str, int]]:
    """Write the snapshots that hold these examples without them, each beside its own: stage -> SHA-256, how many."""
    found = {}
    for row in index.stages():
        if not row.arrived:
            continue
        whole = snapshots.read(state.snapshot(row.number), row.data_sha256)
        kept = [one not in digests for one in whole.known()]
        if not all(kept):
            left = whole.at(torch.tensor(kept, dtype=torch.bool))
            found[row.number] = snapshots.write(state.erased(row.number), left), len(left)
    return found
