"""What cannot be read tonight and may be tomorrow: disks that fail for a while, permissions that are set right."""

import errno
import os
from pathlib import Path

import pytest

from nights import arrive, content, night, rows, said, shard, stages
from warmstart.errors import InputError
from warmstart.retraining import reading


@pytest.fixture
def failing(monkeypatch):
    """Opening a file of this name, or listing a folder of it, fails as it is said."""
    where, plain, listed = {}, Path.open, os.scandir

    def refuse(path):
        if (number := where.get(Path(path).name)) is not None:
            raise OSError(number, os.strerror(number), str(path))

    def opened(path, *rest, **more):
        refuse(path)
        return plain(path, *rest, **more)

    def scandir(path="."):
        refuse(path)
        return listed(path)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "scandir", scandir)
    return where


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_an_image_that_cannot_be_read_for_a_night_arrives_with_the_next(data, tmp_path, failing, number):
    state = tmp_path / "state"
    failing["0007.png"] = number
    night(data, state)
    night(data, state)
    assert stages(state)[1]["arrived"] == 59
    assert len(said(state, "quarantined")) == 2
    assert [row["path"][-8:] for row in rows(state, "SELECT path FROM quarantine")] == ["0007.png"]
    failing.clear()
    arrive(data, 60, 75)
    night(data, state)
    assert stages(state)[2]["arrived"] == 16


def test_an_image_that_arrived_is_not_gone_because_its_disk_fails(data, tmp_path, failing):
    state = tmp_path / "state"
    night(data, state)
    next(data.rglob("0007.png")).touch()
    failing["0007.png"] = errno.EIO
    night(data, state)
    failing.clear()
    night(data, state)
    assert not said(state, "gone")
    assert list(stages(state)) == [1]


def test_a_shard_that_cannot_be_read_for_a_night_arrives_with_the_next(tmp_path, monkeypatch):
    data, state = tmp_path / "data", tmp_path / "state"
    shard(data / "a.npz", 0, 60)
    shard(data / "b.npz", 60, 75)

    def fail(path, *_):
        raise InputError(f"{path}: cannot be read") from OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        plain = reading.read_npz
        patch.setattr(reading, "read_npz", lambda path, *rest: (fail if path.name == "b.npz" else plain)(path, *rest))
        night(data, state)
    assert stages(state)[1]["arrived"] == 60
    night(data, state)
    assert stages(state)[2]["arrived"] == 15


def test_a_folder_that_cannot_be_read_is_refused_by_its_name(data, tmp_path, failing):
    state = tmp_path / "state"
    night(data, state)
    arrive(data, 60, 75)
    before = content(state)
    failing["3"] = errno.EACCES
    with pytest.raises(InputError, match=r"data/3: this folder cannot be read \(Permission denied\); permit it"):
        night(data, state)
    assert content(state) == before
