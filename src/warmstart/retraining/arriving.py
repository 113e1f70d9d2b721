"""What is new in the data folder becomes the next stage: its snapshot, classes, files, and what was left out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from torch import nn

from warmstart.data.settings import read_size
from warmstart.data.train_and_test import order_parts
from warmstart.errors import DamagedError, InputError
from warmstart.retraining import snapshots
from warmstart.retraining.attempts import Attempts
from warmstart.retraining.candidate import grown_state
from warmstart.retraining.choice import Choice, chosen, examples, in_order, relabelled, snapshot_of
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.facts import Facts, first_facts, wanted
from warmstart.retraining.index import Index, KnownFile, StageRow
from warmstart.retraining.reading import Expected, Found, find
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.snapshots import Snapshot, pixel_digest, split
from warmstart.retraining.state import FIRST, StateFolder
from warmstart.retraining.training import Job, Part, require_testable
from warmstart.runs.rehearsal import rehearse
from warmstart.runs.run import Run
from warmstart.runs.state import RunState
from warmstart.storage import checkpoint
from warmstart.wording import counted


@dataclass(frozen=True)
class Intake:
    """Takes what has arrived into a state."""

    state: StateFolder
    index: Index
    settings: RetrainSettings
    chronicle: Chronicle
    attempts: Attempts

    def take(self) -> StageRow | None:
        """The next stage, written down but not trained; None where nothing is new.

        Returns:
            The stage.

        Raises:
            InputError: If the settings contradict the first stage, or too much cannot be read; nothing is changed.
        """
        index, settings = self.index, self.settings
        facts = Facts.read(index)
        if facts is not None:
            facts.check(settings)
        before = index.files()
        stages = index.stages()
        expected = replace(self._expected(facts), layout=index.fact("layout") or "", begun=bool(stages))
        found = find(settings.data, before, expected)
        self._require_few_bad(found)
        for note in found.notes:
            self.chronicle.say("not read", note)
        parts = [Part(row.number, row.data_sha256) for row in stages if row.arrived]
        files = {part.stage: self.state.snapshot(part.stage) for part in parts}
        known = snapshots.known_examples(files, index.withdrawn(index.next_stage()))
        present, refused = examples(found.present), index.refused()
        excess, gone = present - known, examples(before) - present
        excess = Counter({one: count for one, count in excess.items() if one not in refused})
        test = self._test(facts, found) if settings.test is not None and excess and found.labels else None
        places = chosen(found, excess, set() if test is None else set(map(pixel_digest, test.images)))
        before_it = list(snapshots.known(files.values())) if places or gone else []
        withdrawn = relabelled(found, places, present.keys() - refused, known.keys() - present.keys(), before_it)
        sides = {one.pixels: one.held_out for one in before_it}
        self._say_what_changed(before, found, sum(gone[one] for one in gone if one in known and one not in withdrawn))
        self._say_what_is_out(sum(known[one] for one in withdrawn), sum(one in refused for one in found.digests))
        choice, row = Choice(places, withdrawn, sides), None
        if places or self._may_try_again(stages):
            row = self._stage(facts, found, choice, test, parts, before)
        if row is None and not places:
            self._forget(before, found, withdrawn)
        return row

    def _expected(self, facts: Facts | None) -> Expected:
        settings = self.settings
        if facts is None:
            return Expected(wanted(settings, read_size(settings.image_size), settings.fit))
        return Expected(facts.wanted(settings), facts.channels, facts.whole_numbers)

    def _require_few_bad(self, found: Found) -> None:
        allowed = math.ceil(self.settings.max_bad * found.rows)
        if len(found.bad) > allowed:
            path, reason = found.bad[0]
            raise InputError(
                f"{self.settings.data}: {len(found.bad)} of {counted(found.rows, 'new example')} cannot be read, more "
                f"than --max-bad {self.settings.max_bad:.2%} allows, such as {path}: {reason}"
            )
        for path, reason in found.bad:
            self.chronicle.say("quarantined", f"left out: {path}: {reason}", path=path, reason=reason)

    def _test(self, facts: Facts | None, found: Found) -> Found:
        """The images of --test, in the size of those that arrive."""
        assert self.settings.test is not None
        height, width = found.images.shape[-2:]
        known = self._expected(facts)
        expected = replace(known, wanted=replace(known.wanted, size=known.wanted.size or (height, width)))
        test = find(self.settings.test, {}, replace(expected, channels=known.channels or found.channels))
        for path, reason in test.bad:
            self.chronicle.say("quarantined", f"left out of --test: {path}: {reason}", path=path, reason=reason)
        if not test.labels:
            raise InputError(f"--test {self.settings.test}: no image can be read; replace them")
        return test

    def _say_what_changed(self, before: Mapping[str, KnownFile], found: Found, gone: int) -> None:
        for path in sorted(found.read & before.keys()):
            then, now = (Counter(split(files[path].digests)) for files in (before, found.present))
            if (new := (now - then).total()) or (then - now).total():
                text = f"{path} has changed: {counted(new, 'example')} new, {(then - now).total():,} gone"
                self.chronicle.say("changed", text, path=path)
        if gone:
            text = f"{counted(gone, 'example')} no longer in {self.settings.data}; training goes on with them"
            self.chronicle.say("gone", text, examples=gone)

    def _say_what_is_out(self, relabelled: int, refused: int) -> None:
        if relabelled:
            text = f"{counted(relabelled, 'example')} under another class now; training goes on with that one alone"
            self.chronicle.say("withdrawn", text, examples=relabelled)
        if refused:
            text = f"{counted(refused, 'example')} left out: withdrawn before (--withdraw); --readmit takes that back"
            self.chronicle.say("refused", text, examples=refused)

    def _may_try_again(self, stages: Sequence[StageRow]) -> bool:
        """Whether data that is not trained on has not been tried with these settings, such as after a rollback."""
        latest = max((row.number for row in stages if row.arrived), default=0)
        if (self.index.current or 0) >= latest:
            return False
        tried = [row for row in stages if row.number >= latest]
        if any(since > tried[-1].number for since in self.index.withdrawn(self.index.next_stage()).values()):
            return True  # it is other data now
        mine = self.settings.numbers()
        if any(RetrainSettings.from_json(row.settings).numbers() == mine for row in tried):
            last = tried[-1]
            why = f"was rejected ({last.reason})" if last.state == "rejected" else "was rolled back"
            self.chronicle.say("waiting", f"stage {last.number} {why}; it is tried again with the data that comes next")
            return False
        return True

    def _forget(self, before: Mapping[str, KnownFile], found: Found, withdrawn: Set[bytes]) -> None:
        """Nothing arrives: files that are only renamed, touched or unreadable are remembered so."""
        vanished = before.keys() - found.present.keys()
        if not found.read and not vanished and not found.bad:
            return
        with self.index.transaction():
            self.index.set_files({path: found.present[path] for path in found.read}, vanished)
            self.index.withdraw(self.index.next_stage(), withdrawn)
            self.index.add_quarantine(self.index.next_stage() - 1, found.bad)
            self.index.add_events(self.chronicle.drain())

    def _stage(
        self,
        facts: Facts | None,
        found: Found,
        choice: Choice,
        test: Found | None,
        parts: list[Part],
        before: Mapping[str, KnownFile],
    ) -> StageRow | None:
        index, settings, places = self.index, self.settings, choice.places
        number = index.next_stage()
        known = index.classes()
        labels = [found.labels[place] for place in places]
        new_classes = in_order({*labels, *(test.labels if test else ())} - set(known))
        self._require_wanted(found, new_classes, known)
        classes = (*known, *new_classes)
        place_of = {name: place for place, name in enumerate(classes)}
        sha256, test_file = "", self._latest_test_file()
        if places:
            arrived = snapshot_of(found, places, place_of, choice.sides)
            sha256 = snapshots.write(self.state.snapshot(number), arrived)
            parts = [*parts, Part(number, sha256)]
            facts = facts or first_facts(settings, found, arrived)
            del arrived  # it is read again, as it was written
        if test is not None:
            test_file = self._write_test(snapshot_of(test, range(len(test.labels)), place_of, {}))
        assert facts is not None  # a first stage has examples
        withdrawn = index.withdrawn(number) | dict.fromkeys(choice.withdrawn, number)
        data = self.attempts.data(parts, test_file, withdrawn)
        job = Job(number, settings, facts, classes, data, tuple(index.chain(index.current)))
        self._rehearse(job)
        if job.new == 0:
            self.state.snapshot(number).unlink(missing_ok=True)
            new = f"{counted(len(places), 'new example')}, all held out" if places else "what came later is withdrawn"
            self.chronicle.say("waiting", f"{new}: nothing to train on yet")
            return None
        row = _row(job, sha256, test_file, len(places))
        self.state.remove_weights(number)  # left by a stage that an older index does not know
        self._say_what_arrived(row, new_classes, known)
        with index.transaction():
            index.set_facts({"fixed": facts.as_json()} | ({"layout": found.layout} if found.layout else {}))
            index.add_classes(new_classes)
            index.add_stage(row)
            vanished = before.keys() - found.present.keys()
            index.set_files({path: found.present[path] for path in found.read}, vanished)
            index.withdraw(number, choice.withdrawn)
            index.add_quarantine(number, found.bad)
            index.add_events(self.chronicle.drain())
        return row

    def _require_wanted(self, found: Found, new_classes: Sequence[str], known: Sequence[str]) -> None:
        """Raise InputError if a class that is new is none, or is not to come by itself."""
        data = self.settings.data
        _, parts = order_parts(new_classes)
        if parts and found.layout.startswith("class folders"):
            raise InputError(
                f"{data}: the folder {parts[0]} beside class folders would be a class; move it out of --data and name "
                "it with --test, or rename it"
            )
        if known and new_classes and self.settings.new_classes == "refuse":
            names = f"new class{'es' if len(new_classes) > 1 else ''} {', '.join(new_classes)}"
            raise InputError(f"{data}: {names} (--new-classes refuse); correct the labels, or let them grow")

    def _rehearse(self, job: Job) -> None:
        """Refuse now what would fail in training: then nothing of the stage is written down."""
        try:
            if job.stage == 1:
                require_testable(job)
            if job.new == 0:
                return
            job.data.require_whole()
            task, key = job.task(FIRST), job.key(FIRST)
            task.check([job.settings.seed])
            rehearse(task, [key])
            if job.chain:
                self._require_growth(job.chain[-1], Run(task, key, None).model)
        except InputError:
            self.state.snapshot(job.stage).unlink(missing_ok=True)
            raise

    def _require_growth(self, number: int, fresh: nn.Module) -> None:
        """Raise InputError if the network of the stage before cannot be read, or grow to the classes of now."""
        before = self.index.stage(number)
        assert before is not None
        try:
            saved = checkpoint.load(self.state.checkpoint(number, before.attempt))
            RunState.from_saved(saved.metadata, saved.tensors)
        except DamagedError:
            return  # damaged: the training goes on from an earlier one, and says so
        grown_state(saved.model_state, fresh.state_dict(), before.classes, self.settings.model)

    def _say_what_arrived(self, row: StageRow, new_classes: Sequence[str], known: Sequence[str]) -> None:
        again = "" if row.arrived else " (they have been tried before)"
        self.chronicle.say(
            "arrived",
            f"stage {row.number}: {counted(row.new, 'new example')} to train on{again}, {row.seen:,} in all; "
            f"{counted(row.held_out, 'example')} held out",
            row.number,
            new=row.new,
            seen=row.seen,
            held_out=row.held_out,
        )
        if known and new_classes:
            text = f"new {'class' if len(new_classes) == 1 else 'classes'}: {', '.join(new_classes)}; the head grows"
            self.chronicle.say("classes", text, row.number, classes=list(new_classes))

    def _latest_test_file(self) -> str:
        return next((row.test_file for row in reversed(self.index.stages()) if row.test_file), "")

    def _write_test(self, test: Snapshot) -> str:
        """Keep a test set, under a name that is its SHA-256; it may be there already."""
        beside = self.state.data_file("test.safetensors")
        sha256 = snapshots.write(beside, test)
        name = snapshots.name_of_test(sha256)
        beside.replace(self.state.data_file(name))
        return name


def _row(job: Job, sha256: str, test_file: str, arrived: int) -> StageRow:
    """A stage as it is written down before it is trained."""
    return StageRow(
        number=job.stage,
        parent=job.chain[-1] if job.chain else None,
        state="training",
        reason="",
        settings=job.settings.to_json(),
        data_sha256=sha256,
        test_file=test_file,
        arrived=arrived,
        new=job.new,
        seen=len(job.data.train),
        held_out=len(job.data.test),
        began=time.time(),
        ended=None,
        classes=len(job.classes),
        attempt=FIRST,
        kept=True,
        followed=0,
    )
