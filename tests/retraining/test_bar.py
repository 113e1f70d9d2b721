"""The best model so far, which the gate holds candidates against beside the one in service."""

import sqlite3
from pathlib import Path

import pytest

from nights import arrive, current, night, rows, said, stages
from warmstart.retraining.history import history, remarks
from warmstart.retraining.retrain import roll_back
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder

STILL = {"promote": "margin", "margin": 0.9, "method": "warm", "lr": 1e-9}
"""Nights that change next to nothing and promote it: the bar stays."""


@pytest.fixture
def state(data, tmp_path):
    """Three promoted stages, of which the first is the bar, and more data."""
    night(data, tmp_path / "state", keep=1)
    for end in (75, 90):
        arrive(data, end - 15, end)
        night(data, tmp_path / "state", keep=1, **STILL)
    arrive(data, 90, 105)
    return tmp_path / "state"


def bars(state):
    return {
        row["stage"]: int(row["value"]) for row in rows(state, "SELECT stage, value FROM metrics WHERE name = 'bar'")
    }


def test_the_bar_stays_until_something_better_is_shown_and_its_weights_are_kept(data, state):
    assert bars(state) == {1: 1, 2: 1, 3: 1}
    assert sorted(path.name for path in (state / "models").iterdir()) == ["0001", "0003"]
    assert stages(state)[2]["kept"] == 0
    with StateFolder(state).opened() as index:
        said_of_it = remarks(index, history(index))
    assert said_of_it == ["stage 1 is the best so far, which candidates are held against beside stage 3"]
    night(data, state)  # by --promote always
    assert bars(state)[4] == 4


def test_a_rollback_brings_that_stages_bar_back(data, tmp_path):
    state = tmp_path / "state"
    night(data, state)
    arrive(data, 60, 75)
    night(data, state, **STILL)
    arrive(data, 75, 90)
    night(data, state)
    assert bars(state) == {1: 1, 2: 1, 3: 3}
    roll_back(NightSettings.of({"state": str(state)}), 2)
    arrive(data, 90, 105)
    night(data, state, **STILL)
    assert bars(state)[4] == 1


def test_a_state_from_before_takes_the_model_in_service(data, state):
    with sqlite3.connect(state / "index.sqlite") as database:
        database.execute("DELETE FROM metrics WHERE name = 'bar'")
    database.close()
    night(data, state, **STILL)
    assert bars(state) == {4: 3}


@pytest.mark.parametrize("checkpoint", ["whole", "damaged"])
def test_a_damaged_bar_rejects_nothing(data, state, checkpoint):
    Path(state / "models/0001/weights.safetensors").write_bytes(b"damaged")
    if checkpoint == "damaged":
        Path(state / "stages/0001/checkpoint.safetensors").write_bytes(b"damaged")
    night(data, state, **STILL)
    assert current(state) == 4
    assert bars(state)[4] == (1 if checkpoint == "whole" else 3)
    assert [text.rpartition("; ")[2] for text in said(state, "damaged")] == (
        [] if checkpoint == "whole" else ["the model in service is the best so far from now on"]
    )
