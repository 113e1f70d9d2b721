import errno
import os
import signal
import subprocess
import sys

import pytest

from warmstart.errors import InputError
from warmstart.storage.lock import FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from warmstart.storage.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path / "out"`."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "out"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_missing_folder_is_made(tmp_path):
    with FolderLock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()


def test_a_second_process_is_named_and_kept_out(tmp_path, holder):
    message = rf"out is in use by another warmstart process \(pid {holder.pid}\); wait for it or choose another --out"

    for _ in range(2):  # trying does not disturb the holder's lock
        with pytest.raises(InputError, match=message), FolderLock(tmp_path / "out"):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_process_blocks_nobody(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with FolderLock(tmp_path / "out"):
        assert (tmp_path / "out" / ".warmstart.pid").read_text().startswith(f"{os.getpid()} ")


def test_a_folder_that_nothing_can_be_written_to_is_the_callers_mistake_and_a_full_disk_is_not(tmp_path, monkeypatch):
    def fail(number):
        def mkdir(self, **settings):
            raise OSError(number, os.strerror(number), str(self))

        monkeypatch.setattr("pathlib.Path.mkdir", mkdir)

    fail(errno.EROFS)
    with pytest.raises(InputError, match=r"is not a folder to write to \(Read-only"), FolderLock(tmp_path / "out"):
        pass
    fail(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"), FolderLock(tmp_path / "out"):
        pass


def test_it_can_be_taken_again_after_an_error_inside(tmp_path):
    with pytest.raises(RuntimeError), FolderLock(tmp_path):
        raise RuntimeError
    with FolderLock(tmp_path):
        pass


def test_it_keeps_out_a_second_use_in_the_same_process(tmp_path):
    with FolderLock(tmp_path), pytest.raises(InputError, match="in use"), FolderLock(tmp_path):
        pass


def test_two_folders_are_two_locks(tmp_path, holder):
    with FolderLock(tmp_path / "other"):
        pass


def test_taking_it_removes_what_killed_writers_left_but_being_refused_does_not(tmp_path, holder):
    run = tmp_path / "out" / "runs" / "warm-seed-0"
    run.mkdir(parents=True)
    leftover = run / ".stage-01.safetensors.0a1b2c3d.warmstart-tmp"
    leftover.write_bytes(b"half")

    with pytest.raises(InputError), FolderLock(tmp_path / "out"):
        pass
    assert leftover.exists()

    holder.kill()
    holder.wait()
    with FolderLock(tmp_path / "out"):
        assert list(run.iterdir()) == []


def test_a_grid_in_a_folder_below_keeps_what_it_is_writing(tmp_path):
    inner = tmp_path / "c" / "runs" / "warm-seed-0" / ".stage-01.safetensors.0a1b2c3d.warmstart-tmp"
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"half")

    with FolderLock(tmp_path):
        assert inner.exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")

    for folder in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(InputError, match=r"is not a folder to write to .*choose another --out"), FolderLock(folder):
            pass


def test_a_lock_that_is_a_symbolic_link_is_refused_and_nothing_is_written_through_links(tmp_path):
    target, out = tmp_path / "thesis.tex", tmp_path / "out"
    target.write_text("years of work")
    out.mkdir()
    for name in (".warmstart.pid", ".warmstart.lock"):
        (out / name).symlink_to(target)

    with pytest.raises(InputError, match=r"is not a folder to write to .*warmstart\.lock"), FolderLock(out):
        pass
    (out / ".warmstart.lock").unlink()
    with FolderLock(out):
        assert (out / ".warmstart.pid").read_text().startswith(f"{os.getpid()} ")
    assert target.read_text() == "years of work"


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
def test_a_file_system_without_locks_is_refused_rather_than_locked_in_a_way_that_outlives_a_kill(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(InputError, match=r"is not a folder to write to \(Function not implemented: \S+\)"),
        FolderLock(tmp_path),
    ):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_neither_frees_its_parents_lock_nor_keeps_it(tmp_path):
    here, there = os.pipe()
    lock = FolderLock(tmp_path / "out")
    with lock:
        child = os.fork()
        if child == 0:
            try:
                lock.__exit__(None, None, None)
                os.write(there, b"left")
                signal.pause()
            finally:
                os._exit(1)
        assert os.read(here, 4) == b"left"
        with pytest.raises(InputError, match="in use"), FolderLock(tmp_path / "out"):
            pass
    try:
        with FolderLock(tmp_path / "out"):  # the child is alive
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(here)
        os.close(there)


def test_a_new_folder_in_which_nothing_was_done_goes_again_and_any_other_stays(tmp_path):
    with pytest.raises(ValueError, match="refused"), FolderLock(tmp_path / "new" / "and" / "deep"):
        raise ValueError("refused")
    assert not (tmp_path / "new").exists()

    (tmp_path / "old").mkdir()
    with FolderLock(tmp_path / "old"):
        pass
    with FolderLock(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    assert (tmp_path / "old").is_dir()
    assert (tmp_path / "used" / "file").exists()
