"""How nights end: promoted or not, tried again, compared with training from scratch, and who is told."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

import warmstart as ws
from nights import arrive, current, night, rows, said, stages
from warmstart.errors import InputError, WorkFailedError
from warmstart.retraining.attempts import Attempts
from warmstart.retraining.retrain import roll_back
from warmstart.retraining.settings import NightSettings
from warmstart.storage import checkpoint


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def runs(state, stage):
    found = rows(state, "SELECT attempt, result FROM runs WHERE stage = ?", stage)
    return {row["attempt"]: json.loads(row["result"]) for row in found}


def metrics(state, stage):
    return {row["name"]: row["value"] for row in rows(state, "SELECT name, value FROM metrics WHERE stage = ?", stage)}


def test_the_weights_in_service_are_those_of_the_last_epoch_and_load_gives_them(data, state):
    night(data, state)
    served = ws.load(state)
    saved = checkpoint.load(state / "stages" / "0001" / "checkpoint.safetensors")
    assert all(torch.equal(tensor, saved.model_state[name]) for name, tensor in served.model.state_dict().items())
    assert served.classes == tuple("0123456789")
    first = next((data / "3").glob("*.png"))
    assert served.predict([first]).names[0] in served.classes


def test_a_loss_that_explodes_is_tried_again_with_a_third_of_the_rate_and_then_rejected(data, state):
    with pytest.raises(WorkFailedError, match="stage 1 is rejected: the loss became infinite or no number; no"):
        night(data, state, model="mlp", lr=1e30)
    assert {attempt: run["status"] for attempt, run in runs(state, 1).items()} == {
        "first": "diverged",
        "slower": "diverged",
    }
    assert said(state, "again") == ["the loss became infinite or no number; once more with a third of the rate"]
    assert not (state / "current").exists()

    night(data, state, model="mlp")  # with another rate the same data is tried at once
    assert current(state) == 2
    assert stages(state)[2]["arrived"] == 0


def test_a_rule_never_reached_is_tried_again_from_the_stages_start_with_a_smaller_rate(data, state):
    night(data, state)
    arrive(data, 60, 75)
    with pytest.raises(WorkFailedError, match="training never reached --until within --max-epochs; the model"):
        night(data, state, epochs=None, until=1.0, max_epochs=1)
    attempts = runs(state, 2)
    assert {run["status"] for run in attempts.values()} == {"max-epochs"}
    rates = {}
    for attempt, folder in (("first", state / "stages/0002"), ("slower", state / "stages/0002/slower")):
        rates[attempt] = checkpoint.load(folder / "checkpoint.safetensors").optimizer_state["param_groups"][0]["lr"]
    assert rates["slower"] == pytest.approx(rates["first"] / 3)
    assert attempts["first"]["test_loss"] != attempts["slower"]["test_loss"]


def test_what_is_worse_is_saved_by_the_smaller_rate_where_that_helps(data, state):
    night(data, state, epochs=30)
    arrive(data, 60, 75)
    night(data, state, lr=0.5, promote="margin", epochs=15, method="warm", margin=0.3, seed=1)
    row = stages(state)[2]
    assert (row["state"], row["attempt"]) in {("promoted", "first"), ("promoted", "slower")}


def test_from_scratch_beside_is_measured_and_never_put_into_service(data, state):
    night(data, state)
    arrive(data, 60, 75)
    night(data, state, cold_every=2)
    assert set(runs(state, 2)) == {"first", "cold"}
    assert runs(state, 2)["cold"]["method"] == "cold"
    found = metrics(state, 2)
    assert found["cold_accuracy"] == runs(state, 2)["cold"]["test_accuracy"]
    assert said(state, "cold")[0].startswith("the warm line ")
    weights = checkpoint.load(state / "stages/0002/checkpoint.safetensors").model_state
    served = ws.load(state).model.state_dict()
    assert all(torch.equal(tensor, served[name]) for name, tensor in weights.items())

    arrive(data, 75, 90)
    night(data, state, cold_every=2)
    assert set(runs(state, 3)) == {"first"}


def test_a_rollback_puts_an_earlier_model_back_and_its_later_data_is_new_again(data, state):
    for end in (60, 75, 90):
        arrive(data, 0, end)
        night(data, state)
    settings = NightSettings.of({"state": str(state)})
    assert roll_back(settings, None) == 2
    assert current(state) == 2
    night(data, state)  # tried already
    assert len(stages(state)) == 3
    assert roll_back(settings, 1) == 1
    with pytest.raises(InputError, match="there is no stage before the one in service"):
        roll_back(settings, None)
    with pytest.raises(InputError, match="stage 9 was not promoted; choose from 1, 2, 3"):
        roll_back(settings, 9)

    arrive(data, 90, 105)
    night(data, state)
    last = stages(state)[4]
    assert (last["parent"], last["arrived"]) == (1, 15)
    assert last["new"] == last["seen"] - stages(state)[1]["seen"]
    assert current(state) == 4


def test_a_stage_that_was_interrupted_goes_on_as_it_began_and_can_be_given_up(data, state, monkeypatch, capsys):
    night(data, state)
    arrive(data, 60, 75)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Attempts, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(data, state)
        with pytest.raises(KeyboardInterrupt):
            night(data, state, lr=0.02, method="warm")
    told = capsys.readouterr().err.splitlines()
    assert "going on with stage 2 as it began, with another lr, method than now; --rollback 1 gives it up" in told
    roll_back(NightSettings.of({"state": str(state)}), 1)
    night(data, state, lr=0.02, method="warm")
    assert {number: row["state"] for number, row in stages(state).items()} == {
        1: "promoted",
        2: "rejected",
        3: "promoted",
    }


def test_old_weights_are_pruned_and_neither_current_nor_what_a_rollback_needs(data, state):
    for end in range(60, 120, 10):
        arrive(data, end - 10, end)
        night(data, state, keep=2)
    assert sorted(path.name for path in (state / "models").iterdir()) == ["0005", "0006"]
    assert sorted(path.name for path in (state / "stages").iterdir()) == ["0005", "0006"]
    assert len(list((state / "data").iterdir())) == 6
    settings = NightSettings.of({"state": str(state)})
    assert roll_back(settings, None) == 5
    with pytest.raises(InputError, match="the weights of stage 3 have been pruned"):
        roll_back(settings, 3)


def test_hooks_log_and_metrics_are_told(data, state, tmp_path):
    told = {
        "on_promoted": f"echo promoted $WARMSTART_STAGE $WARMSTART_MODEL >> {tmp_path}/hook; exit 3",
        "on_failed": f"echo failed $WARMSTART_STAGE $WARMSTART_REASON >> {tmp_path}/hook",
        "log_json": str(tmp_path / "log.jsonl"),
        "metrics": str(tmp_path / "metrics.prom"),
    }
    night(data, state, **told)
    arrive(data, 60, 75)
    with pytest.raises(WorkFailedError):
        night(data, state, promote="margin", lr=30.0, **told)
    (data / "1" / "bad.png").write_text("no image")
    with pytest.raises(InputError):
        night(data, state, max_bad=0, **told)

    promoted, rejected, failed = (tmp_path / "hook").read_text().splitlines()
    assert promoted == f"promoted 1 {state}/models/0001"
    assert rejected.startswith("failed 2 worse than current by more than the margin")
    assert failed.startswith(f"failed {data}: 1 of 1 new example")
    assert "ended with 3" in said(state, "hook failed")[0]  # and the model is in service all the same
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"arrived", "trained", "promoted", "again", "rejected"} <= {event["event"] for event in events}
    lines = (tmp_path / "metrics.prom").read_text().splitlines()
    numbers = dict(line.replace(f'{{state="{state}"}}', "").split() for line in lines if line[0] != "#")
    assert numbers["warmstart_retrain_stages_promoted"] == "1"
    assert numbers["warmstart_retrain_last_promoted"] == "0"
    assert numbers["warmstart_retrain_current_stage"] == "1"


def test_the_registry_follows_promotions_and_rollbacks(data, state, monkeypatch):
    followed = []
    monkeypatch.setattr(
        "warmstart.serving.registry.follow", lambda folder, name: followed.append((folder, name)) or "7"
    )
    for end in (60, 75):
        arrive(data, 0, end)
        night(data, state, registry="mlflow")
    roll_back(NightSettings.of({"state": str(state), "registry": "mlflow"}), None)
    assert followed == [(state / "models" / f"{number:04}", "state") for number in (1, 2, 1)]
    assert said(state, "registered") == ["version 7 of state in the registry is current"] * 3


def test_what_is_promoted_is_exported_beside_its_weights(data, state):
    night(data, state, export="torch")
    exported = torch.export.load(state / "current" / "model.pt2").module()
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    _, probabilities = exported(image)
    assert torch.allclose(probabilities, ws.load(state).predict_pixels(image).probabilities, atol=1e-5)


def test_a_follower_that_fails_is_said_and_the_model_is_in_service_all_the_same(data, state, monkeypatch):
    def fail(*_):
        raise RuntimeError("no server")

    monkeypatch.setattr("warmstart.serving.registry.follow", fail)
    night(data, state, registry="mlflow")
    assert said(state, "follower failed") == ["registry: RuntimeError: no server"]
    assert current(state) == 1


def test_another_optimizer_or_method_goes_on_from_the_same_weights_and_says_so(data, state):
    night(data, state)
    arrive(data, 60, 75)
    night(data, state, optimizer="adamw", method="hare-tortoise")
    assert said(state, "note") == [
        "the optimizer is adamw now and was sgd: its moments begin anew",
        "the method is hare-tortoise now and was dash: what it keeps begins anew",
    ]
    arrive(data, 75, 90)
    night(data, state, optimizer="adamw", method="hare-tortoise")
    assert len(said(state, "note")) == 2
    assert current(state) == 3


def test_a_clock_that_goes_backwards_changes_nothing(data, state, monkeypatch):
    night(data, state)
    monkeypatch.setattr("time.time", lambda: 1.0)
    arrive(data, 60, 75)
    night(data, state)
    assert current(state) == 2
    assert stages(state)[2]["ended"] < stages(state)[1]["ended"]


def test_the_index_is_readable_by_anybody(data, state):
    night(data, state)
    with sqlite3.connect(state / "index.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert Path(state / "index-copy.sqlite").is_file()


def test_what_a_kill_left_of_a_copy_of_the_index_goes_with_the_next_night(data, state):
    night(data, state)
    left = state / ".index-copy.sqlite.00000000.warmstart-tmp"
    left.write_bytes(b"half")
    night(data, state)
    assert not left.exists()
    with closing(sqlite3.connect(state / "index-copy.sqlite")) as copy:
        assert copy.execute("SELECT number, state FROM stages").fetchall() == [(1, "promoted")]
