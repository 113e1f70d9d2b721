"""MLflow: one run for each run of the grid, below a parent run for the comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from warmstart.grids.tracking.service import Point, RunStatus, TrackedGroup, TrackedRun
from warmstart.mlflow_server import find_experiment, mlflow_client

_TAG = "warmstart_id"
"""The tag by which a run is found again."""
_STATUS = {"done": "FINISHED", "diverged": "FAILED", "interrupted": "KILLED"}
_LARGEST_BATCH = 1000
"""Metrics that a server accepts at a time."""


class Mlflow:
    """Runs of the experiment ``MLFLOW_EXPERIMENT_NAME``, else ``warmstart``, at ``MLFLOW_TRACKING_URI``."""

    def __init__(self, group: TrackedGroup) -> None:
        """Connect to the server, and find or create the experiment and the comparison's parent run.

        Raises:
            InputError: If mlflow is not installed, or the server does not answer or refuses access.
        """
        with mlflow_client() as client:
            self._client = client
            self._experiment = find_experiment(client)
            self._parent = self._find(group.id) or self._create(group.name, group.id, {})
            client.update_run(self._parent, status="RUNNING")

    def open(self, run: TrackedRun) -> MlflowRecord:
        """Start a tracked run, or continue it."""
        found = self._find(run.id)
        if found is not None:
            self._client.update_run(found, status="RUNNING")
            return MlflowRecord(self._client, found)
        created = self._create(run.name, run.id, {"mlflow.parentRunId": self._parent})
        for name, value in run.settings.items():
            self._client.log_param(created, name, value)
        return MlflowRecord(self._client, created)

    def close(self, *, complete: bool) -> None:
        """End the comparison's parent run."""
        self._client.set_terminated(self._parent, _STATUS["done" if complete else "interrupted"])

    def _find(self, id_: str) -> str | None:
        runs = self._client.search_runs([self._experiment], f"tags.{_TAG} = '{id_}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def _create(self, name: str, id_: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment, tags={_TAG: id_, **tags}, run_name=name)
        run_id: str = run.info.run_id
        return run_id


class MlflowRecord:
    """One MLflow run."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def log(self, points: Sequence[Point]) -> None:
        """Send points in batches."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, point.at) for point in points for name, value in point.values.items()]
        for start in range(0, len(metrics), _LARGEST_BATCH):
            self._client.log_batch(self._run_id, metrics[start : start + _LARGEST_BATCH])

    def end(self, status: RunStatus) -> None:
        """End the run as finished, failed or killed."""
        self._client.set_terminated(self._run_id, _STATUS[status])
