"""MLflow's model registry: what is promoted becomes a version there, and an alias follows promotion and rollback.

MLflow has deprecated its fixed stages (Staging, Production) since 2.9; aliases took their place. Whoever asks for
``models:/NAME@current`` gets the model in service.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from warmstart.mlflow_server import find_experiment, mlflow_client
from warmstart.serving.model_folder import CARD, CURRENT, check_model, find_model, read_card

_TAG = "warmstart_sha256"
"""The tag by which a version is found again: the hash of the card, which holds that of the weights."""


def register(folder: str | Path, name: str) -> str:
    """Add a model to MLflow's registry at ``MLFLOW_TRACKING_URI``, as the newest version of that name.

    The version holds the model's folder as it is, without pickle; `mlflow.pyfunc.load_model` reads it where warmstart
    is installed. A model that was registered before is not added again, so that an interrupted call can be repeated.

    Args:
        folder: A model's, or the state of `warmstart retrain`, whose current model is meant.
        name: Of the registered model, which is made if it is missing.

    Returns:
        The version's number, a text, as MLflow has it.

    Raises:
        InputError: If the model is damaged, mlflow is not installed, or the server does not answer or refuses.
    """
    model = find_model(Path(folder))
    check_model(model)
    card = read_card(model)
    digest = hashlib.sha256((model / CARD).read_bytes()).hexdigest()
    with mlflow_client() as client:
        found = client.search_model_versions(f"name = '{name}' and tags.{_TAG} = '{digest}'")
        if found:
            return str(found[0].version)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        run = client.create_run(find_experiment(client), run_name=f"{name} {digest[:8]}").info.run_id
        for key, value in _numbers(card.about).items():
            client.log_metric(run, key, value)
        with tempfile.TemporaryDirectory() as place:
            _write_mlflow_model(Path(place) / "model", model)
            client.log_artifacts(run, str(Path(place) / "model"), "model")
        client.set_terminated(run)
        made = client.create_model_version(name, f"runs:/{run}/model", run, tags={_TAG: digest})
        return str(made.version)


def point_to(name: str, version: str, alias: str = CURRENT) -> None:
    """Let an alias of a registered model mean this version, after a promotion or a rollback.

    Args:
        name: Of the registered model.
        version: What `register` has returned.
        alias: ``current`` by default.

    Raises:
        InputError: If there is no such version, mlflow is not installed, or the server does not answer or refuses.
    """
    with mlflow_client() as client:
        client.set_registered_model_alias(name, alias, version)


def follow(folder: Path, name: str) -> str:
    """Register a model unless it has been, and let ``current`` mean it: after a promotion or a rollback.

    Args:
        folder: The model's.
        name: Of the registered model.

    Returns:
        The version's number.
    """
    version = register(folder, name)
    point_to(name, version)
    return version


def _numbers(about: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in about.items() if isinstance(value, (int, float))}


def _write_mlflow_model(place: Path, model: Path) -> None:
    """The folder in MLflow's layout: beside it stands what says which module loads it."""
    from mlflow import pyfunc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow over itself, and that there is no signature
        pyfunc.save_model(
            place,
            loader_module="warmstart.serving.pyfunc",
            data_path=str(model),
            pip_requirements=[f"warmstart[lab]=={version('warmstart')}"],
        )
