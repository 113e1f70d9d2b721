"""A night: what was interrupted is finished, what has arrived is trained on, and the gate decides.

Everything that decides follows from files that are written once: the snapshots, the checkpoint of the stage before,
the settings in the index. So a night that is killed anywhere ends as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from warmstart.errors import DamagedError, InputError, OtherVersionError, WorkFailedError
from warmstart.retraining.arriving import Intake
from warmstart.retraining.attempts import Attempts, Trained
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.following import Followers
from warmstart.retraining.hooks import FAILED, PROMOTED, make_due
from warmstart.retraining.index import Index, StageRow, State
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.state import FIRST, SLOWER, StateFolder, to_prune
from warmstart.serving.model_folder import check_model


@dataclass(frozen=True)
class Night:
    """The first process's work in a locked state."""

    state: StateFolder
    index: Index
    settings: RetrainSettings
    chronicle: Chronicle
    attempts: Attempts
    followers: Followers

    def pass_(self) -> None:
        """Finish what was interrupted, then train on what is new; WorkFailedError if a candidate is rejected."""
        self._repair()
        interrupted = next((row for row in self.index.stages() if row.state == "training"), None)
        if interrupted is not None:
            text = f"going on with stage {interrupted.number}{self._as_it_began(interrupted)}"
            self.chronicle.say("resumed", text, interrupted.number)
            self._finish(interrupted)
        arrived = Intake(self.state, self.index, self.settings, self.chronicle, self.attempts).take()
        if arrived is not None:
            self._finish(arrived)
        elif interrupted is None:
            self.chronicle.say("nothing new", f"nothing new to train on in {self.settings.data}: {self._in_service()}")
        self.write_down()

    def _as_it_began(self, row: StageRow) -> str:
        """What an operator has to know who calls with other settings than those of an interrupted stage."""
        then, now = RetrainSettings.from_json(row.settings).numbers(), self.settings.numbers()
        changed = ", ".join(name for name in now if now[name] != then[name])
        if not changed:
            return ""
        way_out = "" if self.index.current is None else f"; --rollback {self.index.current} gives it up"
        return f" as it began, with another {changed} than now{way_out}"

    def write_down(self) -> None:
        """Keep in the index what was said and is in no transaction yet."""
        if said := self.chronicle.drain():
            with self.index.transaction():
                self.index.add_events(said)

    # What an earlier call has left, and what has befallen the files since

    def _repair(self) -> None:
        """Bring the files to what the index says, and put an earlier model into service if the newest is damaged."""
        self._remove_pruned()
        if (current := self.index.current) is not None:
            self._require_sound_model(current)
        if self.state.point_to(self.index.current):
            self.chronicle.say("repaired", f"current points to stage {self.index.current} again", self.index.current)
        self.followers.make_good()

    def _require_sound_model(self, current: int) -> None:
        """Check the model in service; a damaged one is made anew from its checkpoint, or the one before takes over."""
        for number in reversed(self.index.chain(current)):
            try:
                check_model(self.state.model(number))
            except DamagedError as error:
                self.chronicle.say("damaged", str(error), number)
                row = self._row(number)
                if not self.attempts.write_model_anew(row, self.settings.as_of_stage(row.settings)):
                    continue
                self.chronicle.say("repaired", f"the model of stage {number} is made anew from its checkpoint", number)
            if number != current:
                self.chronicle.say("fell back", f"the model of stage {number} is in service again", number)
                with self.index.transaction():
                    self.followers.return_to(number)
                    self.index.add_events(self.chronicle.drain())
            return
        raise WorkFailedError(
            f"{self.state.path}: no promoted model is whole any more; restore models/ from a backup, or begin with "
            "another --state",
            resumable=False,
        )

    def _remove_pruned(self) -> None:
        for row in self.index.stages():
            if not row.kept:
                self.state.remove_weights(row.number)
        self.state.remove_tests({row.test_file for row in self.index.stages() if row.kept})

    # One stage

    def _finish(self, row: StageRow) -> None:
        """Train a stage that has arrived, judge it, and put it into service or not."""
        settings = self.settings.as_of_stage(row.settings)
        self.attempts.job(row, settings).data.require_whole()
        try:
            trained = self._trained(row, settings)
            numbers = self._measured(row, settings, trained)
        except OtherVersionError:
            raise
        except InputError as error:  # the method refuses the network, say: the same settings would fail for ever
            self._end(row, "rejected", str(error), FIRST, {})
            raise
        state: State = "promoted" if trained.passed else "rejected"
        self._end(row, state, trained.reason, trained.attempt, numbers)
        if not trained.passed:
            why = f"stage {row.number} is rejected: {trained.reason}; {self._in_service()}"
            raise WorkFailedError(why, resumable=False)

    def _trained(self, row: StageRow, settings: RetrainSettings) -> Trained:
        """The stage's training, or the second one with a smaller rate."""
        first = self.attempts.train(row.number, settings, FIRST)
        if first.passed:
            return first
        self.chronicle.say("again", f"{first.reason}; once more with a third of the rate", row.number)
        slower = self.attempts.train(row.number, settings, SLOWER)
        if slower.passed or first.verdict is None:
            return slower
        # What is kept of a rejected stage, and told of it, should be the better network of the two.
        return first if slower.verdict is None or slower.verdict.accuracy < first.verdict.accuracy else slower

    def _measured(self, row: StageRow, settings: RetrainSettings, trained: Trained) -> Mapping[str, float]:
        """What the gate measured, and what training from scratch beside would bring; the model is written."""
        if trained.verdict is None:
            return {}
        numbers = trained.verdict.metrics()
        if trained.passed:
            bar = trained.verdict.bar
            numbers["bar"] = row.number if bar is None or trained.verdict.raises_bar else bar
        self.attempts.write_model(row, settings, trained, trained.verdict.accuracy)
        due = settings.cold_every is not None and (1 + self._promoted()) % settings.cold_every == 0
        if trained.passed and due:
            numbers |= self.attempts.beside_cold(row.number, settings, trained)
        return numbers

    def _end(self, row: StageRow, state: State, reason: str, attempt: str, numbers: Mapping[str, float]) -> None:
        """Write down how a stage ended, in one transaction; a kill after it is made good by the next call."""
        self.chronicle.say(state, f"stage {row.number} is {state}: {reason}", row.number, **numbers)
        results = self.attempts.results(row, self.settings.as_of_stage(row.settings))
        with self.index.transaction():
            for name, result in results.items():
                self.index.set_run(row.number, name, *result)
            self.index.set_metrics(row.number, numbers)
            self.index.change_stage(row.number, state=state, reason=reason, attempt=attempt, ended=time.time())
            if state == "promoted":
                self.index.set_facts({"current": row.number})
            make_due(self.index, self.settings, PROMOTED if state == "promoted" else FAILED, row.number, reason)
            chain = self.index.chain(self.index.current)
            for number in to_prune(self.index.stages(), chain, self.settings.keep, self.index.bar):
                self.index.change_stage(number, kept=0)
            self.index.add_events(self.chronicle.drain())
        self.state.point_to(self.index.current)
        self._remove_pruned()
        if state == "promoted":
            self.followers.follow(self._row(row.number))
        self.followers.keep_copy(row)

    def _in_service(self) -> str:
        current = self.index.current
        return "no model is in service yet" if current is None else f"the model of stage {current} stays in service"

    def _promoted(self) -> int:
        return sum(row.state == "promoted" for row in self.index.stages())

    def _row(self, number: int) -> StageRow:
        row = self.index.stage(number)
        assert row is not None
        return row
