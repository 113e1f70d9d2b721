"""Nothing that goes wrong at night loses data, a model, or the next night: damage, full disks, two calls at once."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import warmstart as ws
from commands import warmstart
from nights import FAST, arrive, content, current, night, said, shard, stages
from warmstart.errors import InputError, WorkFailedError
from warmstart.retraining.checking import check
from warmstart.retraining.retrain import roll_back
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder
from warmstart.storage import atomic
from warmstart.storage.lock import FolderLock


def damage(file):
    """Change one byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def checked(state):
    folder = StateFolder(state)
    with folder.opened() as index:
        return check(folder, index)


def test_a_damaged_newest_checkpoint_is_replaced_by_the_one_before(data, state):
    damage(state / "stages/0002/checkpoint.safetensors")
    arrive(data, 75, 90)
    night(data, state)
    assert stages(state)[3]["parent"] == 1
    assert stages(state)[3]["new"] == stages(state)[3]["seen"] - stages(state)[1]["seen"]
    assert "stages/0002/checkpoint.safetensors: damaged checkpoint" in said(state, "damaged")[0]
    assert said(state, "damaged")[0].endswith("stage 3 goes on from stage 1")
    assert current(state) == 3


def test_without_any_whole_checkpoint_a_new_network_is_trained_on_everything(data, state):
    for stage in (1, 2):
        damage(state / f"stages/{stage:04}/checkpoint.safetensors")
    arrive(data, 75, 90)
    night(data, state)
    assert stages(state)[3]["parent"] is None
    assert stages(state)[3]["new"] == stages(state)[3]["seen"]
    assert said(state, "damaged")[-1].endswith("stage 3 goes on from a new network")


def test_a_damaged_model_is_made_anew_from_its_checkpoint(data, state):
    before = content(state)
    damage(state / "models/0002/weights.safetensors")
    with pytest.raises(InputError, match=r"weights\.safetensors: damaged"):
        ws.load(state)
    night(data, state)
    assert "made anew from its checkpoint" in said(state, "repaired")[0]
    assert content(state) == before


def test_where_model_and_checkpoint_are_damaged_the_model_before_is_in_service_again(data, state):
    damage(state / "models/0002/weights.safetensors")
    damage(state / "stages/0002/checkpoint.safetensors")
    night(data, state)
    assert current(state) == 1
    assert said(state, "fell back") == ["the model of stage 1 is in service again"]
    ws.load(state)


def test_a_damaged_checkpoint_of_an_unfinished_stage_lets_it_begin_anew(data, state, monkeypatch):
    arrive(data, 75, 90)
    undone = state.with_name("undone")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("warmstart.retraining.attempts.write_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        night(data, state)
    monkeypatch.undo()
    assert not undone.exists()
    damage(state / "stages/0003/checkpoint.safetensors")
    night(data, state)
    assert current(state) == 3
    assert said(state, "damaged")[0].endswith("the stage begins anew")
    assert checked(state)[1] == []


def test_a_rollback_gives_up_a_stage_that_is_being_trained(data, state, monkeypatch):
    arrive(data, 75, 90)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("warmstart.retraining.attempts.write_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        night(data, state)
    monkeypatch.undo()
    roll_back(NightSettings.of({"state": str(state)}), None)
    assert (stages(state)[3]["state"], current(state)) == ("rejected", 1)
    arrive(data, 90, 105)
    night(data, state)
    assert (stages(state)[4]["parent"], current(state)) == (1, 4)


def test_check_finds_every_damaged_or_missing_file(data, state):
    whole, wrong = checked(state)
    assert (whole, wrong) == (6, [])
    damage(state / "data/0001.safetensors")
    (state / "data/0002.safetensors").unlink()
    damage(state / "models/0001/weights.safetensors")
    damage(state / "stages/0002/checkpoint.safetensors")
    (state / "current").unlink()
    whole, wrong = checked(state)
    assert whole == 2
    assert [Path(line.partition(": ")[0]).relative_to(state).as_posix() for line in wrong] == [
        "data/0001.safetensors",
        "models/0001/weights.safetensors",
        "data/0002.safetensors",
        "stages/0002/checkpoint.safetensors",
        "current",
    ]


def test_a_damaged_snapshot_stops_the_night_in_one_line(data, state):
    damage(state / "data/0001.safetensors")
    arrive(data, 75, 90)
    with pytest.raises(InputError, match=r"0001\.safetensors: damaged .*; restore it from a backup"):
        night(data, state)
    assert current(state) == 2


def test_a_damaged_index_is_refused_and_its_copy_goes_on(data, state):
    (state / "index.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match=r"index\.sqlite: damaged .*the copy beside it"):
        night(data, state)
    (state / "index-copy.sqlite").replace(state / "index.sqlite")
    arrive(data, 75, 90)
    night(data, state)
    assert current(state) == 3


@pytest.mark.parametrize("place", range(6))
def test_a_full_disk_loses_nothing_and_the_next_night_makes_it_good(data, state, monkeypatch, place):
    arrive(data, 75, 90)
    writes = 0

    def full(descriptor):
        nonlocal writes
        writes += 1
        if writes > place:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises((OSError, WorkFailedError), match="No space left"):
        night(data, state)
    monkeypatch.undo()
    assert ws.load(state).card.about["stage"] == current(state)

    night(data, state)
    assert current(state) == 3
    assert checked(state)[1] == []


def test_a_folder_that_cannot_be_written_is_said_in_one_line(data, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "state"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"is not a folder to write to \(Permission denied.*choose another --state"):
        night(data, tmp_path / "state")


def test_two_calls_at_once_the_second_says_who_holds_it_or_waits(data, state):
    arrive(data, 75, 90)
    with (
        FolderLock(state),
        pytest.raises(InputError, match=rf"in use by another warmstart process \(pid {os.getpid()}\)"),
    ):
        night(data, state)

    flags = [word for key, value in FAST.items() for word in (f"--{key}", str(value))]
    call = [sys.executable, "-m", "warmstart", "retrain", "--data", data, "--state", state, *flags, "--wait"]
    with FolderLock(state):
        process = subprocess.Popen(list(map(str, call)), stderr=subprocess.PIPE, text=True)
        assert f"(pid {os.getpid()}); waiting for it" in process.stderr.readline()
        time.sleep(0.3)
        assert process.poll() is None
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert current(state) == 3


def test_fourteen_nights_with_faults(tmp_path, monkeypatch):
    """Two weeks: a rejected candidate, a full disk, damage, bad data, a new class, a rollback, nights without data."""
    data, state = tmp_path / "data", tmp_path / "state"
    flags = [
        "retrain",
        "--data",
        data,
        "--state",
        state,
        "--epochs",
        8,
        "--lr",
        0.01,
        "--device",
        "cpu",
        "--threads",
        1,
    ]
    codes, end = [], 0

    def passes(*more):
        codes.append(warmstart(*flags, *more))

    def arrives(count):
        nonlocal end
        shard(data / f"night-{end:04}.npz", end, end + count)
        end += count

    for number in range(1, 15):
        more = ["--margin", 0.1]
        if number not in (5, 9):
            arrives(150 if number == 1 else 40)
        if number == 3:
            more = ["--margin", 0, "--lr", 100]
        if number == 4:
            (data / "broken.npz").write_bytes(b"PK")
        if number == 6:
            damage(state / f"stages/{current(state):04}/checkpoint.safetensors")
        if number == 7:
            monkeypatch.setattr(atomic.os, "fsync", _full)
        if number == 10:
            shard(data / "a new class.npz", end, end + 30, labels=[10] * 30)
            end += 30
        if number == 12:
            assert warmstart("retrain", "--state", state, "--rollback") == 0
        passes(*more)
        monkeypatch.undo()

    assert codes == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    rows = stages(state)
    assert [number for number, row in rows.items() if row["state"] == "rejected"] == [3]
    assert sum(row["arrived"] for row in rows.values()) == end
    last = rows[max(rows)]
    assert last["seen"] + last["held_out"] == end
    assert current(state) == max(rows)
    assert ws.load(state).classes == tuple(map(str, range(11)))
    assert ws.load(state).card.about["accuracy"] > 0.85
    assert checked(state)[1] == []


def _full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_several_processes_pass_the_night_of_one(data, tmp_path):
    """Under torchrun each update is shared; what arrives, the gate and the folder are the first process's."""
    flags = [word for key, value in FAST.items() for word in (f"--{key}", str(value))]
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "warmstart", "retrain")
    together, alone = tmp_path / "together", tmp_path / "alone"
    for end in (60, 75):
        arrive(data, 0, end)
        call = [sys.executable, "-m", *torchrun, "--data", data, "--state", together, *flags]
        done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr.count("is promoted") == 1
        night(data, alone)
    ours, theirs = (ws.load(state).model.state_dict() for state in (together, alone))
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=0.02) for name in theirs)
    assert stages(together)[2]["parent"] == 1
    assert checked(together)[1] == []
