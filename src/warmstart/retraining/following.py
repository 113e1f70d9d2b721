"""What follows the model in service: exports and a model registry.

What fails here is said, undoes nothing, and is tried again by the next call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warmstart.importing import describe
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.hooks import ROLLED_BACK, make_due
from warmstart.retraining.index import FOLLOWED, Index, StageRow
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder


@dataclass(frozen=True)
class Followers:
    """Those who follow which model is in service."""

    state: StateFolder
    index: Index
    settings: NightSettings
    chronicle: Chronicle

    def follow(self, row: StageRow) -> None:
        """Export and register the model of a stage, which is in service, and note it if all went well."""
        done = True
        if self.settings.export is not None:
            done &= self._attempt("export", row, self._export)
        if self.settings.registry is not None:
            done &= self._attempt("registry", row, self._register)
        with self.index.transaction():
            if done:
                self.index.change_stage(row.number, followed=FOLLOWED)
            self.index.add_events(self.chronicle.drain())

    def return_to(self, stage: int) -> None:
        """Put an earlier stage's model into service again, to be told to all; within a transaction."""
        self.index.set_facts({"current": stage})
        self.index.change_stage(stage, followed=0)
        reason = f"the model of stage {stage} is in service again"
        make_due(self.index, self.settings, ROLLED_BACK, stage, reason)

    def make_good(self) -> None:
        """Do what an earlier call could not."""
        current = None if self.index.current is None else self.index.stage(self.index.current)
        if current is not None and current.followed != FOLLOWED:
            self.follow(current)

    def keep_copy(self, row: StageRow) -> None:
        """Keep a copy of the index beside it, after a stage has ended or is in service again."""
        self._attempt("copy", row, lambda _: self.state.copy_index())

    def _attempt(self, what: str, row: StageRow, work: Callable[[StageRow], None]) -> bool:
        try:
            work(row)
        except Exception as error:  # of any library; the model is in service all the same
            self.chronicle.say("follower failed", f"{what}: {describe(error)}", row.number)
            return False
        return True

    def _export(self, row: StageRow) -> None:
        from warmstart.serving.export import SUFFIXES, export
        from warmstart.serving.served import load

        assert self.settings.export is not None
        folder = self.state.model(row.number)
        file = folder / f"model{SUFFIXES[self.settings.export]}"
        export(load(folder, "cpu"), self.settings.export, file)
        self.chronicle.say("exported", f"exported to {file}", row.number)

    def _register(self, row: StageRow) -> None:
        from warmstart.serving.registry import follow

        name = self.settings.registry_name or self.state.path.resolve().name
        version = follow(self.state.model(row.number), name)
        self.chronicle.say("registered", f"version {version} of {name} in the registry is current", row.number)
