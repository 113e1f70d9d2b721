"""Checksums: files that bear an official name must be the official ones."""

import hashlib
import re
from pathlib import Path

import pytest
from made_originals import cifar10_tree, write_svhn

from made_images import class_tree, write_folder, write_zip
from warmstart.data import checksums
from warmstart.data.checksums import verify_official
from warmstart.errors import InputError


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-100-python.tar.gz", "tiny-imagenet-200.zip"])
def test_another_archive_of_that_name_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"truncated")
    found = hashlib.md5(b"truncated").hexdigest()
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(path))}: its md5 is {found}, but that of the official file is \w{{32}}: .*"
    ):
        verify_official(path)
    path.rename(tmp_path / "mine.tar.gz")
    verify_official(tmp_path / "mine.tar.gz")


def test_the_official_content_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "tiny-imagenet-200.zip", class_tree({"cat": 2}))
    monkeypatch.setitem(checksums._MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    verify_official(path)


def test_unpacked_files_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path, cifar10_tree()) / "cifar-10-batches-py"
    for file in folder.iterdir():
        monkeypatch.setitem(checksums._MD5, f"{folder.name}/{file.name}", hashlib.md5(file.read_bytes()).hexdigest())
    verify_official(folder)
    monkeypatch.chdir(folder)
    (folder / "data_batch_3").write_bytes(b"other")
    for path in (folder, Path(), folder / "data_batch_3"):
        with pytest.raises(InputError, match="data_batch_3: its md5 is"):
            verify_official(path)


def test_svhn_is_checked_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = write_svhn(tmp_path) / "train_32x32.mat"
    monkeypatch.setitem(checksums._MD5, train.name, hashlib.md5(train.read_bytes()).hexdigest())
    for path in (tmp_path, train):
        with pytest.raises(InputError, match=r"test_32x32.mat: its md5 is"):
            verify_official(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cifar-10-python.tar.gz: cannot be read"):
        verify_official(tmp_path / "cifar-10-python.tar.gz")
