"""The folder of a state: where everything lies, its lock, the link to the model in service, and what is pruned."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from warmstart.errors import InputError
from warmstart.retraining.candidate import StageFolder
from warmstart.retraining.index import RECOVERY, Index, StageRow
from warmstart.runs.grid_folder import CHECKPOINT
from warmstart.serving.model_folder import CURRENT
from warmstart.storage.atomic import remove_leftovers, write_bytes
from warmstart.storage.lock import Claim, FolderLock

INDEX, COPY = "index.sqlite", "index-copy.sqlite"
_ERASED = "-erased.safetensors"
FIRST, SLOWER, COLD = "first", "slower", "cold"
"""A stage's trainings: the usual one, again with a smaller rate, and from scratch beside."""


@dataclass(frozen=True)
class StateFolder:
    """Where everything lies."""

    path: Path

    @property
    def index(self) -> Path:
        """The index."""
        return self.path / INDEX

    def snapshot(self, stage: int) -> Path:
        """What arrived with a stage."""
        return self.path / "data" / f"{stage:04}.safetensors"

    def erased(self, stage: int) -> Path:
        """What is left of that, until it takes its place."""
        return self.path / "data" / f"{stage:04}{_ERASED}"

    def data_file(self, name: str) -> Path:
        """Another file of data: a test set."""
        return self.path / "data" / name

    def training(self, stage: int, attempt: str, claim: Claim | None = None) -> StageFolder:
        """The folder of one training of a stage."""
        folder = self.path / "stages" / f"{stage:04}"
        return StageFolder(folder if attempt == FIRST else folder / attempt, claim=claim)

    def checkpoint(self, stage: int, attempt: str) -> Path:
        """The checkpoint of one training of a stage."""
        return self.training(stage, attempt).path / CHECKPOINT

    def model(self, stage: int) -> Path:
        """The folder of a stage's model."""
        return self.path / "models" / f"{stage:04}"

    @contextmanager
    def opened(self) -> Iterator[Index]:
        """The index of a state that exists, for reading; InputError if there is none."""
        if not self.index.is_file():
            raise InputError(f"{self.path} holds no state ({INDEX} is missing); give the --state of warmstart retrain")
        with Index(self.index) as index:
            yield index

    @contextmanager
    def locked(self, on_wait: Callable[[str], None] | None = None) -> Iterator[tuple[Index, Claim]]:
        """The state, locked for this process, and made if it is missing.

        Yields:
            Its index and the claim on the folder.
        """
        with FolderLock(self.path, "--state", on_wait=on_wait) as claim:
            self._require_index()
            for folder in (self.path / "data", *self.path.glob("stages/*"), *self.path.glob("stages/*/*")):
                remove_leftovers(folder)
            try:
                with Index(self.index, make=True) as index:
                    self.finish_erasing(index)
                    yield index, claim
            finally:
                self._remove_if_empty()

    def finish_erasing(self, index: Index) -> None:
        """Let what is left of erased snapshots take their place, if the index says so; a kill may have come before."""
        files = sorted(self.path.glob(f"data/*{_ERASED}"))
        for file in files:
            number = int(file.name.removesuffix(_ERASED))
            row = index.stage(number)
            if row is not None and hashlib.sha256(file.read_bytes()).hexdigest() == row.data_sha256:
                file.replace(self.snapshot(number))
            else:
                file.unlink()
        if files:
            self.copy_index()

    def _require_index(self) -> None:
        """Raise InputError if there is data without an index, which a new one would write over."""
        if not self.index.exists() and any(self.path.glob("data/*.safetensors")):
            raise InputError(f"{self.index}: missing, but data/ is there; {RECOVERY}")

    def _remove_if_empty(self) -> None:
        """Leave nothing behind of a first call that was refused."""
        with suppress(InputError, OSError):
            with Index(self.index) as index:
                used = bool(index.stages())
            if not used:
                for left in (*self.path.glob("data/*"), self.index):
                    left.unlink()
                (self.path / "data").rmdir()

    def point_to(self, stage: int | None) -> bool:
        """Let ``current`` point to a stage's model; whether it did not before."""
        if stage is None:
            return False
        link, target = self.path / CURRENT, str(self.model(stage).relative_to(self.path))
        with suppress(OSError):
            if os.readlink(link) == target:
                return False
        beside = self.path / f".{CURRENT}.new"
        beside.unlink(missing_ok=True)
        beside.symlink_to(target)
        beside.replace(link)
        return True

    def served(self) -> Path | None:
        """The folder that ``current`` points to; None if there is no such link."""
        with suppress(OSError):
            return self.path / os.readlink(self.path / CURRENT)
        return None

    def copy_index(self) -> None:
        """Keep a copy of the index, whole at any moment, to go on from if the index is ever damaged."""
        with closing(sqlite3.connect(self.index)) as index:
            write_bytes(self.path / COPY, index.serialize())

    def remove_weights(self, stage: int) -> None:
        """Remove a stage's checkpoints and model."""
        for folder in (self.training(stage, FIRST).path, self.model(stage)):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_tests(self, kept: Collection[str]) -> None:
        """Remove the test sets that have other names than these."""
        for file in self.path.glob("data/test-*.safetensors"):
            if file.name not in kept:
                file.unlink()


def to_prune(stages: list[StageRow], chain: list[int], keep: int, bar: Callable[[int], int]) -> list[int]:
    """The ended stages whose weights are not kept: neither of the newest nor the last in the chain, nor their bar."""
    kept = {*chain[-keep:], *(row.number for row in stages[-keep:])}
    kept |= {bar(number) for number in kept}
    return [row.number for row in stages if row.kept and row.state != "training" and row.number not in kept]
