"""TensorBoard: `tensorboard --logdir OUT/tensorboard` shows one run for each run of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warmstart.errors import InputError
from warmstart.grids.tracking.service import Point, RunStatus, TrackedGroup, TrackedRun


class TensorBoard:
    """Event files in the comparison's folder."""

    def __init__(self, group: TrackedGroup) -> None:
        """Raise unless the package is installed.

        Raises:
            InputError: If tensorboard is missing.
        """
        try:
            import torch.utils.tensorboard  # noqa: F401  # fail now rather than after the first stage
        except ImportError as error:
            raise InputError(f"tensorboard is not installed ({error}); pip install 'warmstart[tensorboard]'") from None
        self._folder = group.out / "tensorboard"

    def open(self, run: TrackedRun) -> TensorBoardRecord:
        """Start a tracked run, or continue it in another event file."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        writer: Any = SummaryWriter(str(self._folder / run.name.replace("/", "_")))
        if run.new:
            # SummaryWriter.add_hparams would create another run for them.
            for summary in hparams(dict(run.settings), {"stage/test_accuracy": 0.0}):
                writer.file_writer.add_summary(summary)
        return TensorBoardRecord(writer)

    def close(self, *, complete: bool) -> None:
        """Do nothing: each run's file is closed."""


class TensorBoardRecord:
    """One event file."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, points: Sequence[Point]) -> None:
        """Write points to disk."""
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.at)
        self._writer.flush()

    def end(self, status: RunStatus) -> None:
        """Close the file, whatever the status."""
        self._writer.close()
