"""Who is told of a call, and how: hooks, exports, the registry, metrics and the log, also where things go wrong."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from commands import warmstart
from nights import FAST, arrive, current, night, said, stages
from warmstart.errors import InputError, WorkFailedError
from warmstart.retraining import hooks
from warmstart.retraining.metrics import prometheus
from warmstart.retraining.retrain import roll_back
from warmstart.retraining.settings import NightSettings
from warmstart.storage.lock import FolderLock


@pytest.fixture
def told(tmp_path):
    """Hooks and metrics as flags, with what they have written."""

    class Told(dict):
        def lines(self):
            file = tmp_path / "hook"
            return file.read_text().splitlines() if file.exists() else []

        def numbers(self):
            lines = (tmp_path / "metrics.prom").read_text().splitlines()
            named = re.compile(r'warmstart_retrain_(\w+){state="(.*)"} (.*)')
            found = [named.fullmatch(line).groups() for line in lines if line[0] != "#"]
            assert {state for _, state, _ in found} == {str(tmp_path / "state")}
            return {name: float(value) for name, _, value in found}

    say = f"$WARMSTART_RESULT $WARMSTART_STAGE $(basename $WARMSTART_MODEL) >> {tmp_path}/hook"
    return Told(on_promoted=f"echo + {say}", on_failed=f"echo - {say}", metrics=str(tmp_path / "metrics.prom"))


def of(state, **settings):
    return NightSettings.of({"state": str(state), **settings})


@pytest.fixture
def registry(monkeypatch):
    """The registry: what it was given, and whether it answers."""
    given = []

    def follow(folder, name):
        if follow.down:
            raise RuntimeError("no server")
        given.append((folder.name, name))
        return "7"

    follow.down, follow.given = False, given
    monkeypatch.setattr("warmstart.serving.registry.follow", follow)
    return follow


def test_an_export_or_a_registry_that_failed_is_tried_again_and_the_hook_is_not(data, state, told, registry):
    registry.down = True
    arrive(data, 75, 90)
    night(data, state, registry="mlflow", **told)
    assert told.numbers()["followers_failed"] == 1
    night(data, state, registry="mlflow", **told)
    assert registry.given == []
    registry.down = False
    for _ in range(2):
        night(data, state, registry="mlflow", **told)
    assert registry.given == [("0003", "state")]
    assert told.lines() == ["+ promoted 3 0003"]
    assert told.numbers()["followers_failed"] == 0


def test_a_model_that_takes_over_from_a_damaged_one_is_told_of(data, state, told, registry):
    for file in (state / "models/0002/weights.safetensors", state / "stages/0002/checkpoint.safetensors"):
        file.write_bytes(b"damaged")
    night(data, state, registry="mlflow", registry_name="digits", **told)
    assert current(state) == 1
    assert told.lines() == ["+ rolled back 1 0001"]
    assert registry.given == [("0001", "digits")]


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_rollback_is_told_of_and_again_if_it_was_killed_before_that(data, state, told, monkeypatch):
    roll_back(of(state, **told), None)
    assert told.lines() == ["+ rolled back 1 0001"]

    with monkeypatch.context() as patch:
        patch.setattr(hooks.subprocess, "Popen", killed)
        for stage in (2, 1):
            with pytest.raises(KeyboardInterrupt):
                roll_back(of(state, **told), stage)
    assert told.lines()[1:] == []
    night(data, state)  # what is due has its command
    assert told.lines()[1:] == ["+ rolled back 2 0001", "+ rolled back 1 0001"]
    night(data, state, **told)
    assert len(told.lines()) == 3


def test_a_hook_may_take_a_promotion_back_and_is_told_of_that_after_it(data, state, told):
    say = told["on_promoted"]
    back = f"{sys.executable} -m warmstart retrain --state {state} --rollback --on-promoted {shlex.quote(say)}"
    arrive(data, 75, 90)
    night(data, state, on_promoted=f"{back}; {say}")
    assert current(state) == 2
    assert told.lines() == ["+ promoted 3 0003", "+ rolled back 2 0002"]
    assert not said(state, "hook failed")


def test_a_call_waits_for_the_hooks_of_another_and_runs_none_of_them_twice(data, state, told):
    hold = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(state / ".warmstart.hooks.lock")]
    arrive(data, 75, 90)
    call = threading.Thread(target=night, args=(data, state), kwargs=dict(told))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        call.start()
        while not stages(state).get(3, {}).get("ended"):
            time.sleep(0.02)
        with FolderLock(state, on_wait=lambda _: None):  # it has done all else
            assert told.lines() == []
        with closing(sqlite3.connect(state / "index.sqlite")) as database:  # as the other call, which has just run it
            assert database.execute("DELETE FROM hooks").rowcount == 1
            database.commit()
        other.stdin.close()
        call.join()
    assert told.lines() == []


def test_a_call_that_fails_before_it_begins_is_told_of(data, state, told):
    with FolderLock(state), pytest.raises(InputError, match="in use"):
        night(data, state, **told)
    assert told.lines() == ["- failed 0002"]
    assert (told.numbers()["last_call_code"], told.numbers()["current_stage"]) == (2, 2)

    with pytest.raises(InputError, match=r"--log-json .*: cannot be written"):
        night(data, state, log_json=str(data), **told)
    (state / "index.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="damaged"):
        night(data, state, **told)
    assert len(told.lines()) == 3
    assert set(told.numbers()) == {"last_call_code", "last_call_seconds", "followers_failed"}


def test_metrics_are_written_however_a_call_ends(data, state, told):
    for name in ("x", "y"):
        (data / "1" / f"{name}.png").write_text("no image")
    with pytest.raises(InputError, match="max-bad"):
        night(data, state, **told)
    found = told.numbers()
    assert (found["last_call_code"], found["last_promoted"], found["examples_waiting"]) == (2, 1, 0)
    assert time.time() - found["last_call_seconds"] < 60
    for name in ("x", "y"):
        (data / "1" / f"{name}.png").unlink()
    arrive(data, 75, 90)
    with pytest.raises(WorkFailedError):
        night(data, state, promote="margin", lr=30.0, **told)
    found = told.numbers()
    assert (found["last_call_code"], found["examples_waiting"]) == (1, 15)
    assert found["accuracy_in_service"] > found["accuracy"]
    night(data, state, cold_every=1, **told)
    found = told.numbers()
    assert (found["last_call_code"], found["files_present"]) == (0, 90)
    assert found["behind_cold"] in (0, 1)
    night(data, state, **told)
    assert told.numbers()["behind_cold"] == found["behind_cold"]  # the newest that there is


def test_two_states_are_two_labels_and_any_name_can_be_one():
    told = prometheus([("steps", "Updates", 12.0), ("churn", "Share", None)], 'a "b"\\c')
    assert told.splitlines() == [
        "# HELP warmstart_retrain_steps Updates.",
        "# TYPE warmstart_retrain_steps gauge",
        r'warmstart_retrain_steps{state="a \"b\"\\c"} 12',
    ]


def test_a_device_that_is_not_there_is_told_of(data, state, told, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="cuda"):
        night(data, state, device="cuda", **told)
    assert told.lines() == ["- failed 0002"]
    assert told.numbers()["last_call_code"] == 2


def test_the_log_says_how_each_call_ended(data, state, tmp_path):
    log = tmp_path / "log.jsonl"
    night(data, state, log_json=str(log))
    with pytest.raises(InputError):
        night(tmp_path / "nowhere", state, log_json=str(log))
    roll_back(of(state, log_json=str(log)), None)
    ended = [event for event in map(json.loads, log.read_text().splitlines()) if event["event"] == "ended"]
    assert [event["code"] for event in ended] == [0, 2, 0]
    assert "nowhere" in ended[1]["text"]


def test_a_hook_that_hangs_is_ended(data, state, monkeypatch, tmp_path):
    monkeypatch.setattr(hooks, "LONGEST", 0.3)
    arrive(data, 75, 90)
    began = time.monotonic()
    night(data, state, on_promoted=f"(sleep 2; touch {tmp_path}/late) | cat")
    assert time.monotonic() - began < 2
    assert said(state, "hook failed")[0].endswith("took more than 0.005 minutes and was ended")
    time.sleep(max(0, 2.5 - (time.monotonic() - began)))
    assert not (tmp_path / "late").exists()
    assert current(state) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_of_logs_keeps_no_model_from_going_into_service(data, tmp_path, capsys):
    flags = [word for key, value in FAST.items() for word in (f"--{key}", value)]
    code = warmstart("retrain", "--data", data, "--state", tmp_path / "state", "--log-json", "/dev/full", *flags)
    assert code == 0
    assert current(tmp_path / "state") == 1
    assert capsys.readouterr().err.count("--log-json /dev/full: No space left on device; this call writes no more") == 1
