"""The folder of a grid: one checkpoint a run, which knows whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from warmstart.errors import InputError
from warmstart.runs.key import RunKey
from warmstart.runs.state import SCORES, RunState
from warmstart.storage import checkpoint
from warmstart.storage.checkpoint import Checkpoint
from warmstart.storage.lock import Claim

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class GridFolder:
    """Where the runs of a grid are saved and found again; it can be sent to other processes."""

    path: Path
    identities: Mapping[int, str] = field(default_factory=dict)
    """Seed -> what tells its runs from those of other settings or data."""
    claim: Claim | None = None
    """That the folder is locked for this grid; None for reading alone."""
    keeps_weights: bool = True
    """Whether the checkpoint of a run that is over still holds its network, which nothing here needs any more."""

    def resolved(self) -> GridFolder:
        """The same folder from any current one."""
        path = self.path.resolve()
        return replace(self, path=path, claim=self.claim and replace(self.claim, folder=path))

    def require_claim(self) -> None:
        """Raise WorkFailedError if the folder was locked for this grid and is no longer its own."""
        if self.claim is not None:
            self.claim.check()

    def file(self, key: RunKey) -> Path:
        """The checkpoint of a run."""
        return key.folder(self.path) / CHECKPOINT

    def save(
        self, key: RunKey, state: RunState, *, model: nn.Module, optimizer: Optimizer | None, over: bool = False
    ) -> None:
        """Write a run's checkpoint, or leave the old one untouched; WorkFailedError if the folder was taken away.

        Args:
            key: The run.
            state: Its state.
            model: Its network.
            optimizer: Its optimizer.
            over: Whether the run is over.
        """
        self.require_claim()
        bare = over and not self.keeps_weights
        state = replace(state, of_method={}) if bare else state
        file = self.file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {**self._owner(key), **state.to_metadata()}
        checkpoint.save(
            file,
            model={} if bare else model,
            optimizer=None if bare else optimizer,
            metadata=metadata,
            tensors=state.to_tensors(),
            check=self.require_claim,
        )

    def load(self, key: RunKey) -> Checkpoint | None:
        """The checkpoint of a run, None if there is none; InputError if it is damaged or not this run's."""
        if not (file := self.file(key)).exists():
            return None
        saved = checkpoint.load(file)
        self._require_own(key, saved.metadata)
        return saved

    def states(self, keys: Sequence[RunKey]) -> dict[RunKey, RunState]:
        """The states of those runs that have a checkpoint, read without weights and the methods' own tensors."""
        found = {}
        for key in keys:
            if (file := self.file(key)).exists():
                metadata = checkpoint.read_metadata(file)
                self._require_own(key, metadata)
                scores = {SCORES + rest: t for rest, t in checkpoint.read_tensors(file, f"tensors.{SCORES}").items()}
                found[key] = RunState.from_saved(metadata, scores)
        return found

    def _owner(self, key: RunKey) -> dict[str, str]:
        return {"run": str(key), "grid": self.identities.get(key.seed, "")}

    def _require_own(self, key: RunKey, metadata: Mapping[str, object]) -> None:
        own = self._owner(key)
        if metadata.get("run") != own["run"]:
            raise InputError(
                f"{self.file(key)}: this is the run {metadata.get('run')}, not {key}; delete it to compute {key} again"
            )
        if metadata.get("grid") != own["grid"]:
            raise InputError(
                f"{self.file(key)}: saved with other settings or data; choose another --out, or delete it to compute "
                "the run again"
            )
