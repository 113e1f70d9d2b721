"""Folders and archives: what is seen, what is ignored, and damage."""

import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from made_images import write_folder, write_tar, write_zip
from warmstart.data.files import open_files, visible_name
from warmstart.decoding import bounds
from warmstart.errors import InputError

TREE = {"a/1.png": b"one", "a/2.png": b"two" * 5000, "b/c/3.png": b"three"}
WRITERS = {"d": write_folder, "d.zip": write_zip, "d.tar": write_tar, "d.tar.gz": write_tar}


def read_all(path: Path) -> dict[str, bytes]:
    with open_files(path) as files:
        return {name: files.read(name) for name in files.names}


Writer = Callable[[Path, dict[str, bytes]], Path]


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_all_kinds_show_the_same_files(tmp_path: Path, name: str, write: Writer) -> None:
    hidden = {".git/x.png": b"", "a/.DS_Store": b"", "__MACOSX/a/._1.png": b""}
    assert read_all(write(tmp_path / name, TREE | hidden)) == TREE


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "", ".", "a/" * 100 + "x.png"])
def test_names_that_lead_out_are_ignored(name: str) -> None:
    assert visible_name(name) is None


def test_names_are_normalised() -> None:
    assert visible_name("./a//b/x.png") == visible_name("a\\b\\x.png") == "a/b/x.png"


def test_links_and_devices_in_archives_are_ignored_and_nothing_is_written(tmp_path: Path) -> None:
    tar, zipped = tmp_path / "in" / "x.tar", tmp_path / "in" / "x.zip"
    tar.parent.mkdir()
    with tarfile.open(tar, "w") as archive:
        for name, kind in (("s.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("f.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for name in ("../out.png", "/tmp/out.png", "in.png"):
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"ok"))
    with zipfile.ZipFile(zipped, "w") as archive:
        link = zipfile.ZipInfo("s.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../out.png", "ok")
        archive.writestr("in.png", "ok")
    for path in (tar, zipped):
        with open_files(path) as files:
            assert files.names == ["in.png"]
            assert files.read("in.png") == b"ok"
    assert {path.name for path in tmp_path.rglob("*")} == {"in", "x.tar", "x.zip"}


def test_a_linked_folder_is_followed_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"1.png": b"one"})
    write_folder(tmp_path / "data", {"b/2.png": b"two"})
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "loop").symlink_to(tmp_path / "data")
    with open_files(tmp_path / "data") as files:
        assert files.names == ["a/1.png", "b/2.png"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/1.png": b"one"})
    (tmp_path / "a" / "2.png").symlink_to("nowhere")
    with open_files(tmp_path) as files, pytest.raises(InputError, match=r"a/2.png: cannot be read"):
        files.read("a/2.png")


@pytest.mark.parametrize("name", ["d.zip", "d.tar", "d.tar.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8])
def test_a_truncated_archive_is_named(tmp_path: Path, name: str, kept: float) -> None:
    path = WRITERS[name](tmp_path / name, TREE)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=rf"{name}.*truncated or damaged; download or pack it again$"):
        read_all(path)


def test_a_tar_cut_between_members_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "d.tar", TREE)
    path.write_bytes(path.read_bytes()[:1024])  # the first member, whole
    with pytest.raises(InputError, match="unexpected end of data"), open_files(path):
        pass


@pytest.mark.parametrize("name", ["d.zip", "d.tar.gz"])
def test_flipped_bits_are_noticed(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / name, TREE)
    content = bytearray(path.read_bytes())
    content[content.index(b"a/2.png") + 10 if name == "d.zip" else 60] ^= 0xFF  # inside a member's content
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        read_all(path)


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_members_above_the_limit_are_named(
    tmp_path: Path, name: str, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_FILE_BYTES", 10_000)
    with open_files(write(tmp_path / name, TREE)) as files:
        assert files.read("a/1.png") == b"one"
        with pytest.raises(InputError, match=r"a/2.png: .* MiB; remove it"):
            files.read("a/2.png")


def test_a_member_that_lies_about_its_size_is_not_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {"a/1.png": bytes(50_000_000)})
    honest = (50_000_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(honest, (1000).to_bytes(4, "little")))
    with open_files(path) as files:
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=r"bomb.zip: a/1.png: cannot be read"):
                files.read("a/1.png")
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "d.zip", {"a/1.png": b"one"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with open_files(path) as files, pytest.raises(InputError, match=r"a/1.png: encrypted"):
        files.read("a/1.png")
