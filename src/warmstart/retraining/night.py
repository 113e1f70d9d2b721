"""A night: what was interrupted is finished, what has arrived is trained on, and the gate decides.

Everything that decides follows from files that are written once: the snapshots, the checkpoint of the stage before,
the settings in the index. So a night that is killed anywhere ends as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from warmstart.errors import InputError, WorkFailedError
from warmstart.methods.lifecycle import measured, prepares
from warmstart.processes import Team
from warmstart.retraining.arriving import Arrival
from warmstart.retraining.candidate import begin
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.facts import Facts
from warmstart.retraining.following import Followers
from warmstart.retraining.gate import Right, Verdict, behind_cold, judge
from warmstart.retraining.index import Index, StageRow
from warmstart.retraining.night_task import NightTask
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.state import COLD, FIRST, SLOWER, StateFolder, to_prune
from warmstart.retraining.training import Job, Part, train
from warmstart.runs.grid_folder import CHECKPOINT
from warmstart.runs.run import Event, Run
from warmstart.serving.model_folder import ModelCard, check_model, read_model, write_model
from warmstart.storage import checkpoint
from warmstart.storage.checkpoint import Checkpoint
from warmstart.storage.lock import Claim
from warmstart.training.evaluation import evaluate
from warmstart.wording import counted


@dataclass(frozen=True, eq=False)
class Trained:
    """One training that is over."""

    attempt: str
    run: Run
    served: nn.Module
    """The network that the method names."""
    failure: str
    """Why it did not end as it should; empty where it did."""
    verdict: Verdict | None
    """None where it failed."""

    @property
    def passed(self) -> bool:
        """Whether its network may go into service."""
        return self.verdict is not None and self.verdict.passed

    @property
    def reason(self) -> str:
        """Why it may, or may not."""
        if self.verdict is None:
            return self.failure
        return "; ".join([*self.verdict.objections, self.verdict.sentence()])


class RejectedError(WorkFailedError):
    """A candidate did not go into service; the followers know."""


class Night:
    """The first process's work in a locked state."""

    def __init__(
        self,
        state: StateFolder,
        index: Index,
        claim: Claim,
        settings: RetrainSettings,
        chronicle: Chronicle,
        team: Team,
    ) -> None:
        self._state, self._index, self._claim, self._team = state, index, claim, team
        self._settings, self._chronicle = settings, chronicle
        self._followers = Followers(state, index, settings, chronicle)

    def pass_(self) -> None:
        """Finish what was interrupted, then train on what is new; WorkFailedError if a candidate is rejected."""
        self._repair()
        interrupted = next((row for row in self._index.stages() if row.state == "training"), None)
        if interrupted is not None:
            self._chronicle.say("resumed", f"going on with stage {interrupted.number}", interrupted.number)
            self._finish(interrupted)
        arrived = Arrival(self._state, self._index, self._settings, self._chronicle).take()
        if arrived is not None:
            self._finish(arrived)
        elif interrupted is None:
            current = self._index.current
            in_service = "no model is in service yet" if current is None else f"the model of stage {current} stays"
            self._chronicle.say("nothing new", f"nothing new in {self._settings.data}: {in_service}")
        self._followers.write_metrics()
        self.write_down()

    def write_down(self) -> None:
        """Keep in the index what was said and is in no transaction yet."""
        if said := self._chronicle.drain():
            with self._index.transaction():
                self._index.add_events(said)

    def _repair(self) -> None:
        """Bring the files to what the index says, and put an earlier model into service if the newest is damaged."""
        index = self._index
        for row in index.stages():
            if not row.kept:
                self._state.remove_weights(row.number)
        if index.current is not None:
            self._require_sound_model(index.current)
        if self._state.point_to(index.current):
            self._chronicle.say("repaired", f"current points to stage {index.current} again", index.current)
        last = next((row for row in reversed(index.stages()) if row.state != "training"), None)
        if last is not None and not last.followed:
            self._followers.tell(last)

    def _require_sound_model(self, current: int) -> None:
        """Check the model in service; a damaged one is made anew from its checkpoint, or the one before takes over."""
        for number in reversed(self._index.chain(current)):
            try:
                check_model(self._state.model(number))
            except InputError as error:
                self._chronicle.say("damaged", f"{error}", number)
                if not self._written_anew(number):
                    continue
                self._chronicle.say(
                    "repaired", f"the model of stage {number} is written anew from its checkpoint", number
                )
            if number != current:
                with self._index.transaction():
                    self._index.set_facts({"current": number})
                    self._chronicle.say("fell back", f"the model of stage {number} is in service again", number)
                    self._index.add_events(self._chronicle.drain())
            return
        raise WorkFailedError(
            f"{self._state.path}: no promoted model is whole any more; restore models/ from a backup, or begin with "
            "another --state"
        )

    def _written_anew(self, number: int) -> bool:
        """Write a stage's model from its checkpoint, if that is whole."""
        row = self._index.stage(number)
        assert row is not None
        job = self._job(row, self._settings_of(row))
        folder = self._state.training(number, row.attempt, self._claim)
        if not folder.file(job.key(row.attempt)).exists():
            return False
        try:
            run, _ = train(job, row.attempt, folder, Team(), _ignore)
        except InputError:
            return False
        served = measured(run.method, run.model, run.state.of_method)
        write_model(self._state.model(number), served, self._card(row, job, self._index.metrics(number)))
        return True

    # One stage

    def _finish(self, row: StageRow) -> None:
        """Train a stage that has arrived, judge it, and put it into service or not."""
        settings = self._settings_of(row)
        job = self._job(row, settings)
        trained = self._attempt(row, job, FIRST)
        if not trained.passed:
            self._chronicle.say("again", f"{trained.reason}; once more with a third of the rate", row.number)
            first, trained = trained, self._attempt(row, job, SLOWER)
            if trained.verdict is None and first.verdict is not None:
                trained = first  # what is kept of a rejected stage is a network that can be looked at
        numbers = {} if trained.verdict is None else trained.verdict.metrics()
        if trained.passed and settings.cold_every and self._promoted() % settings.cold_every == settings.cold_every - 1:
            numbers |= self._beside_cold(row, job, trained)
        if trained.verdict is not None:
            write_model(self._state.model(row.number), trained.served, self._card(row, job, numbers))
        state = "promoted" if trained.passed else "rejected"
        self._chronicle.say(state, f"stage {row.number} is {state}: {trained.reason}", row.number, **numbers)
        with self._index.transaction():
            for attempt, result in self._results(row, job).items():
                self._index.set_run(row.number, attempt, *result)
            self._index.set_metrics(row.number, numbers)
            self._index.change_stage(
                row.number, state=state, reason=trained.reason, attempt=trained.attempt, ended=time.time()
            )
            if trained.passed:
                self._index.set_facts({"current": row.number})
            for number in self._to_prune():
                self._index.change_stage(number, kept=0)
            self._index.add_events(self._chronicle.drain())
        self._after(row.number)
        if not trained.passed:
            raise RejectedError(f"stage {row.number} is rejected: {trained.reason}; {self._stays()}")

    def _stays(self) -> str:
        current = self._index.current
        return "no model is in service yet" if current is None else f"the model of stage {current} stays in service"

    def _after(self, number: int) -> None:
        """What follows the transaction; a kill in here is made good by the next call."""
        self._state.point_to(self._index.current)
        for row in self._index.stages():
            if not row.kept:
                self._state.remove_weights(row.number)
        ended = self._index.stage(number)
        assert ended is not None
        self._followers.tell(ended)

    def _to_prune(self) -> list[int]:
        index = self._index
        return to_prune(index.stages(), index.chain(index.current), self._settings.keep)

    def _promoted(self) -> int:
        return sum(row.state == "promoted" for row in self._index.stages())

    def _settings_of(self, row: StageRow) -> RetrainSettings:
        """The settings that a stage arrived with; what changes no number is as this call has it."""
        then = RetrainSettings.from_json(row.settings)
        now = {name: getattr(self._settings, name) for name in then.names_of("running", "limit", "reading")}
        return then.model_copy(update=now)

    def _job(self, row: StageRow, settings: RetrainSettings) -> Job:
        facts = Facts.read(self._index)
        assert facts is not None
        parts = [
            Part(one.number, one.data_sha256)
            for one in self._index.stages()
            if one.arrived and one.number <= row.number
        ]
        return Job(
            self._state,
            row.number,
            settings,
            facts,
            self._index.classes()[: row.classes],
            tuple(parts),
            tuple(self._index.chain(row.parent)),
            row.test_file,
        )

    def _attempt(self, row: StageRow, job: Job, attempt: str) -> Trained:
        """One training, from the stage before or from where it was interrupted."""
        folder = self._state.training(row.number, attempt, self._claim)
        key = job.key(attempt)
        self._discard_if_damaged(folder.file(key), row.number)
        if not folder.file(key).exists():
            chain, parent, classes = self._start(row)
            if chain != job.chain:
                job = replace(job, chain=chain)
                with self._index.transaction():
                    self._index.change_stage(row.number, parent=chain[-1] if chain else None, new=job.new)
                    self._index.add_events(self._chronicle.drain())
            for note in begin(job.task(attempt), key, folder, parent, classes):
                self._chronicle.say("note", note, row.number)
        run, task = self._train(job, attempt)
        last = run.state.rows[-1]
        served = measured(run.method, run.model, run.state.of_method)
        self._chronicle.say(
            "trained",
            f"stage {row.number}{'' if attempt == FIRST else f', {attempt}'}: {counted(last.steps, 'step')}, "
            f"{counted(last.epochs, 'epoch')}, training accuracy {last.train_accuracy:.1%}",
            row.number,
            steps=last.steps,
            epochs=last.epochs,
        )
        failure = _FAILURES.get(last.status, "")
        verdict = None if failure else self._judge(run, task, job)
        return Trained(attempt, run, served, failure, verdict)

    def _train(self, job: Job, attempt: str) -> tuple[Run, NightTask]:
        self._team.broadcast((job, attempt))
        folder = self._state.training(job.stage, attempt, self._claim)
        folder.path.mkdir(parents=True, exist_ok=True)
        return train(job, attempt, folder, self._team, _ignore)

    def _discard_if_damaged(self, file: Path, stage: int) -> None:
        """Remove the checkpoint of a training that cannot be gone on from."""
        if not file.exists():
            return
        try:
            checkpoint.load(file)
        except InputError as error:
            self._chronicle.say("damaged", f"{error}; the stage begins anew", stage)
            file.unlink()

    def _start(self, row: StageRow) -> tuple[tuple[int, ...], Checkpoint | None, int]:
        """What a stage goes on from: the newest checkpoint before it that is whole; none for a new network."""
        chain = self._index.chain(row.parent)
        while chain:
            before = self._index.stage(chain[-1])
            assert before is not None
            try:
                file = self._state.training(before.number, before.attempt).path / CHECKPOINT
                return tuple(chain), checkpoint.load(file), before.classes
            except InputError as error:
                chain.pop()
                then = f"stage {row.number} goes on from {f'stage {chain[-1]}' if chain else 'a new network'}"
                self._chronicle.say("damaged", f"{error}; {then}", before.number)
        return (), None, 0

    def _judge(self, run: Run, task: NightTask, job: Job) -> Verdict:
        assert run.state.scores is not None
        candidate = run.state.scores.bool().numpy()
        labels = job.test.labels.numpy()
        current = self._index.current
        right = None if current is None else self._right(current, task, job)
        return judge(candidate, right, labels, job.classes, job.settings)

    def _right(self, stage: int, task: NightTask, job: Job) -> Right:
        """Which of tonight's held-out examples a stage's model gets right; of classes that it does not know, none."""
        model, card = read_model(self._state.model(stage))
        examples = task.held_out
        model.to(examples.mean.device)
        known = job.test.labels < len(card.classes)
        right = np.zeros(len(known), dtype=np.bool_)
        if known.any():
            chosen = examples.at(known.to(examples.labels.device))
            right[known.numpy()] = evaluate(model, chosen, channels_last=task.recipe.channels_last).correct.numpy()
        return right

    def _beside_cold(self, row: StageRow, job: Job, trained: Trained) -> dict[str, float]:
        """Train from scratch on the same, and say how the warm line compares; it is never put into service."""
        run, _ = self._train(job, COLD)
        last = run.state.rows[-1]
        if run.state.scores is None or run.state.diverged:
            self._chronicle.say("cold", "training from scratch diverged, so nothing can be said", row.number)
            return {}
        assert trained.run.state.scores is not None
        warm, cold = trained.run.state.scores.bool().numpy(), run.state.scores.bool().numpy()
        behind, text = behind_cold(warm, cold)
        self._chronicle.say(
            "cold", f"{text}; {last.steps:,} steps against {trained.run.state.rows[-1].steps:,}", row.number
        )
        return {"cold_accuracy": float(cold.mean()), "cold_steps": float(last.steps), "behind_cold": float(behind)}

    def _results(self, row: StageRow, job: Job) -> dict[str, tuple[dict[str, object], Mapping[str, object]]]:
        """The row and the method's report of each training of a stage."""
        found: dict[str, tuple[dict[str, object], Mapping[str, object]]] = {}
        for attempt in (FIRST, SLOWER, COLD):
            folder = self._state.training(row.number, attempt)
            key = job.key(attempt)
            if (states := folder.states([key])) and states[key].rows:
                last = states[key].rows[-1]
                values = {name: _plain(value) for name, value in asdict(last).items()}
                found[attempt] = (values, states[key].reports.get(last.stage, {}))
        return found

    def _card(self, row: StageRow, job: Job, numbers: Mapping[str, float | None]) -> ModelCard:
        facts, settings = job.facts, job.settings
        method = settings.method if prepares(job.task(FIRST).method(settings.method)) else ""
        about = {
            "stage": row.number,
            "method": settings.method,
            "accuracy": numbers.get("accuracy"),
            "examples": row.seen,
            "data_sha256": [part.sha256 for part in job.parts],
        }
        return ModelCard(
            model=facts.model,
            classes=job.classes,
            channels=facts.channels,
            image_size=facts.image_size,
            fit=facts.fit,
            mean=facts.mean,
            std=facts.std,
            bits=facts.bits,
            method=method,
            about=about,
        )


_FAILURES = {
    "diverged": "the loss became infinite or no number",
    "max-epochs": "training never reached --until within --max-epochs",
}
"""Of trainings that did not end as they should. One whose accuracy and loss no longer rose is judged by the gate."""


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ignore(event: Event) -> None:
    """Say nothing of each epoch."""
