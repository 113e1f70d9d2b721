"""Decoded images on disk: the same data, found again, gone on with after a kill, checked, and never half."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from made_images import class_tree, encode, noise, same, sixteen, write_folder
from warmstart.data.load import load
from warmstart.decoding import cache, decode
from warmstart.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "d", class_tree({"cat": 10, "dog": 10}))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded from now on."""
    names: list[str] = []
    plain = decode.decode

    def noting(content: bytes, name: str, *others: object) -> object:
        names.append(name)
        return plain(content, name, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "decode", noting)
    return names


def test_the_same_data_decoded_once(tmp_path: Path, folder: Path, decoded: list[str]) -> None:
    plain = load(folder)
    first = load(folder, cache=tmp_path / "c")
    assert len(decoded) == 40
    again = load(folder, cache=tmp_path / "c")
    assert len(decoded) == 40
    assert same(first, plain)
    assert same(again, plain)
    assert first.channel_std().equal(plain.channel_std())
    assert again.file is not None
    assert again.file.stat().st_size == 20 * 3 * 36


def test_another_size_or_a_changed_file_is_decoded_anew(tmp_path: Path, folder: Path, decoded: list[str]) -> None:
    load(folder, cache=tmp_path / "c")
    load(folder, cache=tmp_path / "c", image_size=4)
    (folder / "cat" / "0.png").write_bytes(encode(noise(6, 77)))
    changed = load(folder, cache=tmp_path / "c")
    assert len(decoded) == 60
    assert same(changed, load(folder))


def test_another_process_maps_the_same_file(tmp_path: Path, folder: Path) -> None:
    data = load(folder, cache=tmp_path / "c")
    sent = pickle.dumps(data)
    assert len(sent) < 4000
    assert same(pickle.loads(sent), data)
    assert same(pickle.loads(pickle.dumps(load(folder))), data)


@pytest.mark.parametrize("damage", ["a byte", "the end", "the state"])
def test_damage_is_noticed(tmp_path: Path, folder: Path, decoded: list[str], damage: str) -> None:
    file = load(folder, cache=tmp_path / "c").file
    assert file is not None
    content = file.read_bytes()
    if damage == "the state":
        (file.parent / "state.json").write_text("{")
    else:
        file.write_bytes(content[:-1] if damage == "the end" else bytes([content[0] ^ 1]) + content[1:])
    assert same(load(folder, cache=tmp_path / "c"), load(folder))
    assert file.read_bytes() == content


KILLED = """
import os, sys
from warmstart.decoding import cache, decode
from warmstart.data.load import load
cache._SAVE_EVERY = 5
plain, seen = decode.decode, []
def dying(content, name, *others):
    seen.append(name)
    if len(seen) == 14:
        os._exit(9)
    return plain(content, name, *others)
decode.decode = dying
load(sys.argv[1], cache=sys.argv[2], skip_unreadable=True)
"""


def test_a_killed_start_is_gone_on_from(tmp_path: Path, folder: Path, decoded: list[str]) -> None:
    (folder / "cat" / "1.png").write_bytes(b"no image")
    killed = subprocess.run([sys.executable, "-c", KILLED, folder, tmp_path / "c"], check=False)
    assert killed.returncode == 9
    data = load(folder, cache=tmp_path / "c", skip_unreadable=True)
    assert len(decoded) < 20
    assert same(data, load(folder, skip_unreadable=True))
    assert "1 of 20 images cannot be read and are left out: cat/1.png" in data.notes[0]
    again = load(folder, cache=tmp_path / "c", skip_unreadable=True)
    assert same(again, data)
    assert again.notes == data.notes
    with pytest.raises(InputError, match=r"cat/1.png: not an image of a known format"):
        load(folder, cache=tmp_path / "c")


def test_grey_before_colour_and_sixteen_bits(tmp_path: Path) -> None:
    grey = class_tree({"cat": 6}, mode="L") | class_tree({"dog": 6})
    tree = grey | {"cat/9.png": sixteen(4000), "dog/9.png": sixteen(2000)}
    write_folder(tmp_path / "d", tree)
    data = load(tmp_path / "d", cache=tmp_path / "c")
    assert same(data, load(tmp_path / "d"))
    assert data.file is not None
    assert sorted(path.name for path in data.file.parent.iterdir()) == ["3-channel.uint8", "lock", "state.json"]
    assert load(tmp_path / "d", cache=tmp_path / "c").notes == data.notes == load(tmp_path / "d").notes


def test_what_would_fill_the_memory_goes_to_the_disk_with_a_note(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache, "free_memory", lambda: 2 * 20 * 3 * 36)
    assert load(folder).file is None
    monkeypatch.setattr(cache, "free_memory", lambda: 2 * 20 * 3 * 36 - 2)
    data = load(folder)
    assert data.file is not None
    assert data.file.is_relative_to(tmp_path / "home" / "warmstart" / "images")
    assert f"over half of the free memory) lie in {data.file.parent}; remove it when you are done" in data.notes[0]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--cache .*file: cannot be read .*; give a folder that can be written to"):
        load(folder, cache=tmp_path / "file")


def test_a_full_disk_is_one_line(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(
        InputError, match=r"20 images of 6x6 need .* GB in .* \(No space left on device\); give --cache"
    ):
        load(folder, cache=tmp_path / "c")
