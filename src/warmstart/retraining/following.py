"""What follows the end of a stage: exports, a model registry, the user's hooks.

They are told at least once: a kill between the stage's end and the last of them lets the next call tell them again.
What fails here is said, and undoes nothing; an export or a registry that failed is tried again by the next call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warmstart.importing import describe
from warmstart.retraining.chronicle import Chronicle
from warmstart.retraining.hooks import FAILED, PROMOTED, ROLLED_BACK, run_hook
from warmstart.retraining.index import AGAIN, TOLD, UNTOLD, Index, StageRow
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder


@dataclass(frozen=True)
class Followers:
    """Those who are told how a stage ended, and which model is in service."""

    state: StateFolder
    index: Index
    settings: NightSettings
    chronicle: Chronicle

    def tell(self, row: StageRow) -> None:
        """Tell them all how a stage ended, write that down, and keep a copy of the index."""
        promoted = row.state == "promoted"
        done = self._publish(row) if promoted else True
        self._run_hook(PROMOTED if promoted else FAILED, row, row.reason)
        self._note(row, done)

    def tell_of_return(self, row: StageRow) -> None:
        """Tell them that the model of an earlier stage is in service again."""
        done = self._publish(row)
        self._run_hook(ROLLED_BACK, row, f"the model of stage {row.number} is in service again")
        self._note(row, done)

    def make_good(self) -> None:
        """Tell them what an earlier call could not."""
        ended = [row for row in self.index.stages() if row.state != "training"]
        if ended and ended[-1].followed == UNTOLD:
            self.tell(ended[-1])
        current = None if self.index.current is None else self.index.stage(self.index.current)
        if current is not None and current.followed == UNTOLD:
            self.tell_of_return(current)
        elif current is not None and current.followed == AGAIN:
            self._note(current, self._publish(current))

    def _publish(self, row: StageRow) -> bool:
        """Export and register the model of a stage, which is in service; whether all went well."""
        done = True
        if self.settings.export is not None:
            done &= self._attempt("export", row, self._export)
        if self.settings.registry is not None:
            done &= self._attempt("registry", row, self._register)
        return done

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

    def _run_hook(self, result: str, row: StageRow, reason: str) -> None:
        if wrong := run_hook(self.state, self.settings, result, row.number, reason):
            self.chronicle.say("hook failed", wrong, row.number)

    def _note(self, row: StageRow, done: bool) -> None:
        with self.index.transaction():
            self.index.change_stage(row.number, followed=TOLD if done else AGAIN)
            self.index.add_events(self.chronicle.drain())
        self._attempt("copy", row, lambda _: self.state.copy_index())
