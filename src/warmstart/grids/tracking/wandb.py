"""Weights & Biases: one run for each run of the grid, in a group for the comparison."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from warmstart.errors import InputError
from warmstart.grids.tracking.service import Point, RunStatus, TrackedGroup, TrackedRun
from warmstart.importing import describe

_WITHOUT_ACCOUNT = ("offline", "dryrun", "disabled")


class Wandb:
    """Runs of the project ``WANDB_PROJECT``, else ``warmstart``; wandb's own variables and files apply."""

    def __init__(self, group: TrackedGroup) -> None:
        """Log in, without ever asking for a key.

        Raises:
            InputError: If wandb is not installed, there is no account to log in to, or its server refuses it.
        """
        try:
            import wandb
        except ImportError as error:
            raise InputError(f"wandb is not installed ({error}); pip install 'warmstart[wandb]'") from None
        self._wandb, self._group = wandb, group
        mode = wandb.setup(wandb.Settings(silent=True)).settings.mode
        if mode in _WITHOUT_ACCOUNT:
            return
        try:
            logged_in = wandb.login(prompt=False)
        except (wandb.errors.Error, OSError) as error:
            raise InputError(f"wandb: {describe(error)}; run `wandb login`, or set WANDB_MODE=offline") from error
        if not logged_in:
            raise InputError("wandb is not logged in; run `wandb login`, or set WANDB_MODE=offline and sync later")

    def open(self, run: TrackedRun) -> WandbRecord:
        """Start a tracked run, or continue it."""
        opened = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "warmstart"),
            group=self._group.name,
            id=run.id,
            name=run.name,
            config=dict(run.settings),
            allow_val_change=True,
            dir=os.environ.get("WANDB_DIR", str(self._group.out)),
            resume="allow",
            reinit="create_new",  # several are open at a time
            # What the driver's process uses and prints belongs to no run.
            settings=self._wandb.Settings(silent=True, console="off", x_disable_stats=True, save_code=False),
        )
        opened.define_metric("stage/*", step_metric="stage")
        opened.define_metric("train/*", step_metric="optimizer_steps")
        return WandbRecord(opened)

    def close(self, *, complete: bool) -> None:
        """Do nothing: a group is only a name."""


class WandbRecord:
    """One wandb run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, points: Sequence[Point]) -> None:
        """Pass points to wandb's own process, which keeps them on disk until they are sent."""
        for point in points:
            self._run.log({point.axis: point.at, **point.values})

    def end(self, status: RunStatus) -> None:
        """Finish the run; it is shown as failed unless its status is done."""
        self._run.finish(exit_code=0 if status == "done" else 1)
