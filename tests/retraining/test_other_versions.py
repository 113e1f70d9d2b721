"""What is not damage: files of another version of warmstart, and an index that is older than what lies beside it."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from nights import arrive, content, current, night, said, stages
from warmstart.errors import OtherVersionError
from warmstart.retraining import attempts
from warmstart.runs.state import RunState
from warmstart.serving import model_folder
from warmstart.storage import checkpoint


@pytest.fixture
def state(begun):
    return begun


@pytest.mark.parametrize("test", [False, True])
def test_a_stage_after_a_restored_index_does_not_take_the_checkpoint_of_one_that_it_does_not_know(
    data, tmp_path, monkeypatch, test
):
    state, settings = tmp_path / "state", {}
    if test:
        arrive(tmp_path / "test", 200, 230)
        settings = {"test": str(tmp_path / "test")}
    night(data, state, **settings)
    arrive(data, 60, 75)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "write_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(data, state, **settings)
    (state / "index-copy.sqlite").replace(state / "index.sqlite")
    arrive(data, 75, 120)
    night(data, state, **settings)

    assert (current(state), stages(state)[2]["seen"] + stages(state)[2]["held_out"] * (not test)) == (2, 120)
    with closing(sqlite3.connect(state / "index.sqlite")) as database:
        (result,) = database.execute("SELECT result FROM runs WHERE stage = 2").fetchone()
    assert json.loads(result)["train_examples"] == stages(state)[2]["seen"]


def other_form(*_):
    raise OtherVersionError("written by another version of warmstart")


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [(checkpoint, "_VERSION", 99), (model_folder, "_FORMAT", 99), (RunState, "from_saved", other_form)],
    ids=["checkpoint", "card", "metadata"],
)
def test_files_of_another_version_are_refused_and_nothing_changes(data, state, monkeypatch, where, name, value):
    before = content(state)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, value)
        with pytest.raises(OtherVersionError):
            night(data, state)
    assert content(state) == before
    assert not said(state, "damaged")

    night(data, state)
    assert (current(state), stages(state)[2]["parent"]) == (2, 1)


def test_a_stage_that_another_version_has_begun_is_left_to_it(data, state, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "write_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(data, state)
    kept = (state / "stages/0002/checkpoint.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_VERSION", 99)
        with pytest.raises(OtherVersionError):
            night(data, state)
    assert (state / "stages/0002/checkpoint.safetensors").read_bytes() == kept
    assert stages(state)[2]["state"] == "training"
    shutil.rmtree(data)
    data.mkdir()
    night(data, state)
    assert current(state) == 2
