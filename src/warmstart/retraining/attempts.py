"""A stage's trainings: what each goes on from, and what the gate says of its network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from torch import nn

from warmstart.errors import DamagedError
from warmstart.methods.lifecycle import measured, prepares
from warmstart.processes import Team
from warmstart.retraining.candidate import Parent, StageFolder, begin
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.facts import Facts
from warmstart.retraining.gate import GateVerdict, Right, Rival, behind_cold, judge_candidate
from warmstart.retraining.index import Index, StageRow
from warmstart.retraining.night_task import NightTask
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.state import COLD, FIRST, SLOWER, StateFolder
from warmstart.retraining.training import ArrivedData, Helpers, Job, Part
from warmstart.runs.run import Run
from warmstart.serving.model_folder import read_model, write_model
from warmstart.storage import checkpoint
from warmstart.storage.lock import Claim
from warmstart.training.evaluation import evaluate
from warmstart.wording import counted

_FAILURES = {
    "diverged": "the loss became infinite or no number",
    "max-epochs": "training never reached --until within --max-epochs",
}
"""Of trainings that did not end as they should. One whose accuracy and loss no longer rose is judged by the gate."""

Result = tuple[dict[str, object], Mapping[str, object]]
"""The row of a training, as in results.csv, and the method's report."""


@dataclass(frozen=True, eq=False)
class Trained:
    """One training that is over."""

    attempt: str
    run: Run
    failure: str
    """Why it did not end as it should; empty where it did."""
    verdict: GateVerdict | None
    """None where it failed."""

    @property
    def served(self) -> nn.Module:
        """The network that the method names."""
        return measured(self.run.method, self.run.model, self.run.state.of_method)

    @property
    def right(self) -> Right:
        """Which of the held-out examples it gets right."""
        assert self.run.state.scores is not None
        return self.run.state.scores.bool().numpy()

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


@dataclass
class Attempts:
    """Trains stages of a locked state."""

    state: StateFolder
    index: Index
    claim: Claim
    chronicle: Chronicle
    helpers: Helpers
    _data: ArrivedData | None = field(default=None, init=False)

    def job(self, row: StageRow, settings: RetrainSettings) -> Job:
        """All that the trainings of a stage need."""
        facts = Facts.read(self.index)
        assert facts is not None
        arrived = [one for one in self.index.stages() if one.arrived and one.number <= row.number]
        parts = (Part(one.number, one.data_sha256) for one in arrived)
        data = self.data(parts, row.test_file, self.index.withdrawn(row.number))
        classes = self.index.classes()[: row.classes]
        return Job(row.number, settings, facts, classes, data, tuple(self.index.chain(row.parent)))

    def data(self, parts: Iterable[Part], test_file: str, withdrawn: Mapping[bytes, int]) -> ArrivedData:
        """What has arrived; the latest is kept, so that it is read once, however many trainings there are."""
        wanted = ArrivedData(self.state, tuple(parts), test_file, withdrawn)
        if self._data != wanted:
            self._data = wanted
        return self._data

    def train(self, number: int, settings: RetrainSettings, attempt: str) -> Trained:
        """Train a stage from the stage before, or go on where that was interrupted, and judge it."""
        job = self._begun(number, settings, attempt)
        run, task = self.helpers.train(job, attempt, self._folder(number, attempt), self.chronicle.progress)
        last = run.state.rows[-1]
        which = f"stage {number}" if attempt == FIRST else f"stage {number}, {attempt}"
        how_long = f"{counted(last.steps, 'step')}, {counted(last.epochs, 'epoch')}"
        self.chronicle.say(
            "trained",
            f"{which}: {how_long}, training accuracy {last.train_accuracy:.1%}",
            number,
            attempt=attempt,
            steps=last.steps,
            epochs=last.epochs,
        )
        trained = Trained(attempt, run, _FAILURES.get(last.status, ""), None)
        return trained if trained.failure else replace(trained, verdict=self._judge(trained, task, job))

    def beside_cold(self, number: int, settings: RetrainSettings, warm: Trained) -> dict[str, float]:
        """Train from scratch on the same, and say how the warm line compares; it is never put into service."""
        job = self._begun(number, settings, COLD)
        run, _ = self.helpers.train(job, COLD, self._folder(number, COLD), self.chronicle.progress)
        if run.state.diverged:
            self.chronicle.say("cold", "training from scratch diverged, so nothing can be said", number)
            return {}
        cold = Trained(COLD, run, "", None).right
        behind, text = behind_cold(warm.right, cold)
        steps, of_warm = (one.state.rows[-1].steps for one in (run, warm.run))
        self.chronicle.say("cold", f"{text}; {steps:,} steps against {of_warm:,}", number)
        return {"cold_accuracy": float(cold.mean()), "cold_steps": float(steps), "behind_cold": float(behind)}

    def write_model(self, row: StageRow, settings: RetrainSettings, trained: Trained, accuracy: float | None) -> None:
        """Write the model of a stage."""
        job = self.job(row, settings)
        about = {
            "stage": row.number,
            "method": settings.method,
            "accuracy": accuracy,
            "examples": row.seen,
            "data_sha256": [part.sha256 for part in job.data.parts],
        }
        card = job.facts.card(job.classes, settings.method if prepares(trained.run.method) else "", about)
        write_model(self.state.model(row.number), trained.served, card)

    def write_model_anew(self, row: StageRow, settings: RetrainSettings) -> bool:
        """Write the model of a stage that has ended from its checkpoint, if that is whole and so is the data."""
        job, folder = self.job(row, settings), self._folder(row.number, row.attempt)
        if not _is_whole(folder, job, row.attempt) or not (job.data.parts and len(job.data.train)):
            return False
        run, _ = Helpers(Team()).train(job, row.attempt, folder, self.chronicle.progress)
        accuracy = self.index.metrics(row.number).get("accuracy")
        self.write_model(row, settings, Trained(row.attempt, run, "", None), accuracy)
        return True

    def results(self, row: StageRow, settings: RetrainSettings) -> dict[str, Result]:
        """The row and the method's report of each training of a stage."""
        job = self.job(row, settings)
        found: dict[str, Result] = {}
        for attempt in (FIRST, SLOWER, COLD):
            key = job.key(attempt)
            states = self._folder(row.number, attempt).states([key])
            if key in states and states[key].rows:
                last = states[key].rows[-1]
                values = {name: _plain(value) for name, value in asdict(last).items()}
                found[attempt] = (values, states[key].reports.get(last.stage, {}))
        return found

    def _folder(self, number: int, attempt: str) -> StageFolder:
        return self.state.training(number, attempt, self.claim)

    def _begun(self, number: int, settings: RetrainSettings, attempt: str) -> Job:
        """The job of a training whose checkpoint is there, or of one that begins with new weights."""
        row = self.index.stage(number)
        assert row is not None
        job, folder = self.job(row, settings), self._folder(number, attempt)
        folder.path.mkdir(parents=True, exist_ok=True)
        key = job.key(attempt)
        if folder.file(key).exists():
            try:
                checkpoint.load(folder.file(key))
                return job
            except DamagedError as error:
                self.chronicle.say("damaged", f"{error}; the stage begins anew", number)
                folder.file(key).unlink()
        if attempt == COLD:
            return job
        chain, parent = self._before(row)
        if chain != job.chain:
            job = replace(job, chain=chain)
            with self.index.transaction():
                self.index.change_stage(number, parent=chain[-1] if chain else None, new=job.new)
                self.index.add_events(self.chronicle.drain())
        for note in begin(job.task(attempt), key, folder, parent):
            self.chronicle.say("note", note, number)
        return job

    def _before(self, row: StageRow) -> tuple[tuple[int, ...], Parent | None]:
        """What a stage goes on from: the newest checkpoint before it that is whole; none for a new network."""
        chain = self.index.chain(row.parent)
        while chain:
            before = self.index.stage(chain[-1])
            assert before is not None
            try:
                saved = checkpoint.load(self.state.checkpoint(before.number, before.attempt))
                settings = RetrainSettings.from_json(before.settings)
                return tuple(chain), Parent(saved, before.classes, settings.method, settings.optimizer)
            except DamagedError as error:
                chain.pop()
                then = f"stage {row.number} goes on from {f'stage {chain[-1]}' if chain else 'a new network'}"
                self.chronicle.say("damaged", f"{error}; {then}", before.number)
        return (), None

    def _judge(self, trained: Trained, task: NightTask, job: Job) -> GateVerdict:
        number, current, bar = self.index.current, None, None
        if number is not None:
            current = self._rival(number, task, job)
            if (best := self.index.bar(number)) != number:
                bar = self._bar(best, task, job)
        return judge_candidate(trained.right, current, bar, job.data.test.labels.numpy(), job.classes, job.settings)

    def _bar(self, number: int, task: NightTask, job: Job) -> Rival | None:
        """The best so far, made anew from its checkpoint if its model is damaged; None if that is damaged as well."""
        row = self.index.stage(number)
        assert row is not None
        try:
            return self._rival(number, task, job)
        except DamagedError as error:
            if self.write_model_anew(row, job.settings.as_of_stage(row.settings)):
                return self._rival(number, task, job)
            self.chronicle.say("damaged", f"{error}; the model in service is the best so far from now on", number)
            return None

    def _rival(self, stage: int, task: NightTask, job: Job) -> Rival:
        """What a stage's model gets right of tonight's held-out examples; of classes that it does not know, none."""
        model, card = read_model(self.state.model(stage))
        examples = task.held_out
        model.to(examples.mean.device)
        known = job.data.test.labels < len(card.classes)
        right = np.zeros(len(known), dtype=np.bool_)
        if known.any():
            chosen = examples.at(known.to(examples.labels.device))
            right[known.numpy()] = evaluate(model, chosen, channels_last=task.recipe.channels_last).correct.numpy()
        return Rival(stage, right, known.numpy())


def _is_whole(folder: StageFolder, job: Job, attempt: str) -> bool:
    """Whether a training has a checkpoint that can be read."""
    try:
        return folder.load(job.key(attempt)) is not None
    except DamagedError:
        return False


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
