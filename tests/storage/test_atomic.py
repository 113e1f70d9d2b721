import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from warmstart.storage import atomic
from warmstart.storage.atomic import new_folder, remove_leftovers, write_bytes, write_text


def test_text_is_utf8_and_keeps_its_line_ends(tmp_path):
    write_text(tmp_path / "table.md", "±1\r\n±2\n")

    assert (tmp_path / "table.md").read_bytes() == b"\xc2\xb11\r\n\xc2\xb12\n"


def test_a_new_file_takes_the_old_ones_place_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "results.csv"
    write_bytes(path, b"old")
    write_bytes(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_the_umask_says(tmp_path):
    write_bytes(tmp_path / "new", b"")
    (tmp_path / "plain").write_bytes(b"")

    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_disk_that_is_full_at_the_end_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_bytes(path, b"new")

    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value).endswith(f"No space left on device: '{path}'")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are POSIX's")
def test_a_disk_that_fills_up_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint"
    path.write_bytes(b"old")
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from pathlib import Path; from warmstart.storage.atomic import write_bytes\n"
        f"write_bytes(Path({str(path)!r}), bytes(200_000))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "OSError" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_kill_leaves_a_whole_file_and_a_leftover_that_is_found(tmp_path):
    folder = tmp_path / "runs" / "a-run"
    folder.mkdir(parents=True)
    path = folder / "state"
    path.write_bytes(b"old")
    (tmp_path / ".mine.tmp").write_bytes(b"not ours")
    script = (
        "import os, time; os.fsync = lambda _: (print('writing', flush=True), time.sleep(60))\n"
        "from pathlib import Path; from warmstart.storage.atomic import write_bytes\n"
        f"write_bytes(Path({str(path)!r}), bytes(1000))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)

    assert path.read_bytes() == b"old"
    assert len(list(folder.iterdir())) == 2

    remove_leftovers(tmp_path)

    assert list(folder.iterdir()) == [path]
    assert (tmp_path / ".mine.tmp").exists()


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "table.md"
    write_bytes(path, b"0" * 300_000)
    script = (
        "from pathlib import Path; from warmstart.storage.atomic import write_bytes\n"
        f"while True: [write_bytes(Path({str(path)!r}), n * 300_000) for n in (b'0', b'1')]"
    )
    seen = set()
    with subprocess.Popen([sys.executable, "-c", script]) as writer:
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            content = path.read_bytes()
            seen.add(content[:1])
            assert content in (b"0" * 300_000, b"1" * 300_000)
        writer.kill()

    assert seen == {b"0", b"1"}


def fill(path, content, interruption=None):
    with new_folder(path) as filled:
        (filled / content).write_text(content)
        if interruption:
            raise interruption


def test_a_folder_is_filled_and_then_takes_the_old_ones_place(tmp_path):
    path = tmp_path / "models" / "1"
    fill(path, "old")
    fill(path, "new")

    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path):
    fill(tmp_path / "model", "old")
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "model", "half", KeyboardInterrupt)

    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*"))] == ["model", "model/old"]


def test_what_a_killed_process_had_filled_goes_with_the_next_folder_of_its_name_and_with_the_leftovers(tmp_path):
    script = f"""
import os
from pathlib import Path
from warmstart.storage.atomic import new_folder
with new_folder(Path({str(tmp_path / "model")!r})) as filled:
    (filled / "half").write_text("half")
    os._exit(9)
"""
    for clean_up in (lambda: fill(tmp_path / "model", "new"), lambda: remove_leftovers(tmp_path)):
        assert subprocess.run([sys.executable, "-c", script]).returncode == 9
        assert [path.name.endswith("-tmp") for path in tmp_path.iterdir() if path.name != "model"] == [True]
        clean_up()
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
