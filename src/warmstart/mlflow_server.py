"""MLflow's server, at ``MLFLOW_TRACKING_URI``: how it is reached, and one line where it is not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from warmstart.errors import InputError
from warmstart.importing import describe

_PATIENCE = 5.0
"""Seconds that a server has to answer at first; MLflow by itself tries for minutes."""


@contextmanager
def mlflow_client() -> Iterator[Any]:
    """Connect to the server; whatever it, or the connection, raises over the work inside becomes one line.

    Yields:
        An `mlflow.MlflowClient`.

    Raises:
        InputError: If mlflow is not installed, or the server does not answer or refuses.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # of 7, which take minutes
    try:
        import mlflow
        import requests
    except ImportError as error:
        raise InputError(f"mlflow is not installed ({error}); pip install 'warmstart[mlflow]'") from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    where = mlflow.get_tracking_uri()
    try:
        if where.startswith(("http://", "https://")):
            requests.get(where, timeout=_PATIENCE)  # any answer will do
        yield mlflow.MlflowClient()
    except InputError:
        raise
    except Exception as error:  # each kind of store has its own errors
        raise InputError(
            f"mlflow at {where}: {shorten(describe(error), 160, placeholder=' …')}; set MLFLOW_TRACKING_URI to a "
            "server that answers, or pip install mlflow, all of it, for a local store"
        ) from error


def find_experiment(client: Any) -> str:
    """The id of the experiment ``MLFLOW_EXPERIMENT_NAME``, else ``warmstart``, which is made if it is missing."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "warmstart")
    found = client.get_experiment_by_name(name)
    id_: str = found.experiment_id if found is not None else client.create_experiment(name)
    return id_
