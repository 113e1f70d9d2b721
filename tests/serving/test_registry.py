"""MLflow's model registry, at a server that these tests start."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import requests
import torch
from pages import python_blocks

from warmstart.errors import InputError
from warmstart.serving.model_folder import CARD, read_model, write_model
from warmstart.serving.registry import follow, point_to, register

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("alembic")  # the server's


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server with its files in a folder that goes with the tests."""
    place, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = (
        f"mlflow server --host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///{place}/mlflow.db"
    )
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command.split(), "--artifacts-destination", place / "artifacts"],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
        while not answers(address):
            assert process.poll() is None, (place / "log").read_text()
            assert time.monotonic() < end, "the server did not start in time"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address):
    try:
        return requests.get(f"{address}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return mlflow.MlflowClient()


def current(client, name):
    return client.get_model_version_by_alias(name, "current").version


@pytest.fixture
def models(state, tmp_path):
    """Two models that differ."""
    model, card = read_model(state / "current")
    for number in (1, 2):
        about = {"stage": number, "accuracy": 0.9 + number / 100, "method": "dash"}
        write_model(tmp_path / str(number), model, replace(card, about=about))
    return tmp_path / "1", tmp_path / "2"


def test_the_alias_follows_promotion_and_rollback(client, models):
    first, second = (register(folder, "digits") for folder in models)
    assert (first, second) == ("1", "2")
    for version in (first, second, first):
        point_to("digits", version)
        assert current(client, "digits") == version
    run = client.get_run(client.get_model_version("digits", second).run_id)
    assert run.data.metrics == {"stage": 2, "accuracy": 0.92}
    assert run.info.status == "FINISHED"


def test_a_model_is_registered_once_however_often_it_is_tried(client, models):
    assert [register(models[0], "once") for _ in range(3)] == ["1"] * 3
    assert register(models[1], "once") == "2"
    assert register(models[0], "once") == "1"


def test_what_comes_out_of_the_registry_is_what_went_in_and_no_pickle(client, models, served, tmp_path):
    point_to("whole", register(models[0], "whole"))
    place = tmp_path / "downloaded"
    mlflow.artifacts.download_artifacts("models:/whole@current", dst_path=str(place))
    (card,) = place.rglob(CARD)
    held, _ = read_model(card.parent)
    expected = served.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in held.state_dict().items())
    assert not [path for path in place.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]

    images = torch.zeros(2, 8, 8, dtype=torch.uint8)
    expected = served.predict(images)
    said = mlflow.pyfunc.load_model("models:/whole@current").predict(images.long().numpy())
    assert [each["label"] for each in said] == expected.names
    assert [each["probability"] for each in said] == pytest.approx(expected.probabilities.max(1).values.tolist())


def test_a_promotion_and_a_rollback_are_followed_in_one_call(client, models):
    for folder, expected in ((models[0], "1"), (models[1], "2"), (models[0], "1")):
        assert follow(folder, "followed") == expected == current(client, "followed")


def test_the_page_on_serving_says_how(client, state, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").symlink_to(state)
    adding, loading = (block for block in python_blocks("serving.md") if "digits" in block)
    names = {"images": torch.zeros(5, 1, 8, 8, dtype=torch.uint8).numpy()}
    exec(adding, names)
    exec(loading, names)
    assert capsys.readouterr().out.count("probability") == 5


def test_a_version_that_is_not_there_is_one_line(client, models, server):
    register(models[0], "short")
    with pytest.raises(InputError, match=rf"^mlflow at {server}: .*99.*not found") as caught:
        point_to("short", "99")
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_not_registered(client, models):
    (models[0] / "weights.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        register(models[0], "damaged")
    assert not client.search_registered_models("name = 'damaged'")


@pytest.fixture
def deaf():
    """A server that takes a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_does_not_answer_is_one_line_and_not_waited_for(models, monkeypatch, deaf):
    monkeypatch.setattr("warmstart.mlflow_server._PATIENCE", 0.2)
    for address in (deaf, "http://127.0.0.1:9"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(InputError, match=rf"^mlflow at {address}: .*; set MLFLOW_TRACKING_URI to a server that"):
            register(models[0], "digits")


def test_a_missing_package_gives_the_install_line(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"^mlflow is not installed .*; pip install 'warmstart\[mlflow\]'$"):
        register(models[0], "digits")
