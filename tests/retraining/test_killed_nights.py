"""A night that is killed anywhere: the next call ends as an undisturbed one, bit for bit."""

import json
import os
import random
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from nights import arrive, content, current, night, restore, rows, stages
from warmstart.errors import WorkFailedError
from warmstart.retraining.index import Index
from warmstart.runs import run as run_module

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.symlink", "os.mkdir", "shutil.rmtree"}
"""What Python tells its audit hooks right before the file system changes."""
EVERY = os.environ.get("WARMSTART_EVERY_LINE") == "1"


class Boundaries:
    """Counts the boundaries that a process comes to, and kills it at one: changes of files, and transactions."""

    def __init__(self, state, at=None):
        self.state, self.at, self.names = str(state), at, []

    def come_to(self, name):
        self.names.append(name)
        if len(self.names) == self.at:
            os._exit(9)

    def watch(self):
        """From now on, in this process."""
        begin = Index.transaction

        @contextmanager
        def transaction(index):
            self.come_to("before a transaction")
            with begin(index):
                yield
                self.come_to("at the end of a transaction")
            self.come_to("after a transaction")

        Index.transaction = transaction

        def hook(event, arguments):
            opened = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax")
            if (opened or event in CHANGES) and self.state in str(arguments[0]):
                self.come_to(f"{event} {Path(str(arguments[0])).name}")

        sys.addaudithook(hook)


def in_a_child(work):
    """Do something in a process of its own; its exit code, 1 if it raised."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def boundaries_of(work, state, pipe):
    """The names of all boundaries that some work comes to."""

    def count():
        watched = Boundaries(state)
        watched.watch()
        try:
            work()
        finally:
            Path(pipe).write_text("\n".join(watched.names))

    in_a_child(count)
    return Path(pipe).read_text().splitlines()


@pytest.fixture(params=["promoted", "rejected", "first"])
def killed(request, tmp_path, monkeypatch):
    """A night to be killed, as it ends undisturbed: its work, the state, a copy from before it, and the content."""
    monkeypatch.setattr(run_module, "SAVE_EVERY", -1.0)  # each epoch is saved
    data, state, before = tmp_path / "data", tmp_path / "state", tmp_path / "before"
    arrive(data, 0, 60)
    settings = {"keep": 1}
    if request.param != "first":
        night(data, state)
        arrive(data, 60, 90)
    else:
        state.mkdir()
    if request.param == "rejected":
        settings = {"promote": "margin", "lr": 30.0}  # both trainings end far below
    shutil.copytree(state, before, symlinks=True)
    work = lambda: night(data, state, **settings)  # noqa: E731
    if request.param == "rejected":
        with pytest.raises(WorkFailedError):
            work()
    else:
        work()
    return request.param, work, state, before, content(state)


def test_a_kill_at_any_boundary_changes_nothing_of_how_the_night_ends(killed, tmp_path):
    outcome, work, state, before, undisturbed = killed
    ends = {row["state"] for row in stages(state).values()}
    assert ("rejected" if outcome == "rejected" else "promoted") in ends
    restore(before, state)
    names = boundaries_of(work, state, tmp_path / "names")
    assert sum("transaction" in name for name in names) >= 6
    assert content(state) == undisturbed  # repeated, it ends in the same way

    wanted = [place for place, name in enumerate(names, start=1) if "transaction" in name]
    others = sorted(set(range(1, len(names) + 1)) - set(wanted))
    wanted += others if EVERY else random.Random(outcome).sample(others, 8)
    wrong = []
    for place in wanted:
        restore(before, state)

        def killed_there(place=place):
            Boundaries(state, place).watch()
            work()

        assert in_a_child(killed_there) == 9, names[place - 1]
        in_a_child(work)
        after = content(state)
        every = after.keys() | undisturbed.keys()
        differing = sorted(name for name in every if after.get(name) != undisturbed.get(name))
        if differing:
            wrong.append(f"{place} {names[place - 1]}: {differing}")
    assert not wrong


def test_what_was_killed_is_finished_with_its_own_data_and_settings(tmp_path):
    data, state = tmp_path / "data", tmp_path / "state"
    arrive(data, 0, 60)

    def killed():
        watched = Boundaries(state)
        watched.come_to = lambda name: os._exit(9) if name == "after a transaction" and stages(state) else None
        watched.watch()
        night(data, state)

    assert in_a_child(killed) == 9
    assert stages(state)[1]["state"] == "training"
    shutil.rmtree(data)
    arrive(data, 60, 61)  # what arrived with the first stage is gone, and its settings are not repeated

    night(data, state, epochs=1)

    assert stages(state)[1]["arrived"] == 60
    (run,) = rows(state, "SELECT result FROM runs WHERE stage = 1")
    assert json.loads(run["result"])["epochs"] == 2
    assert current(state) >= 1


def test_a_kill_at_a_random_moment_changes_nothing_of_how_the_night_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "SAVE_EVERY", -1.0)
    data, state, before = tmp_path / "data", tmp_path / "state", tmp_path / "before"
    arrive(data, 0, 60)
    night(data, state)
    arrive(data, 60, 90)
    shutil.copytree(state, before, symlinks=True)
    began = time.monotonic()
    night(data, state)
    seconds, undisturbed = time.monotonic() - began, content(state)

    moments = random.Random(15)
    killed = 0
    for _ in range(int(os.environ.get("WARMSTART_KILLS", "10"))):
        restore(before, state)
        if (child := os.fork()) == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            night(data, state)
            os._exit(0)
        time.sleep(moments.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        night(data, state)
        assert content(state) == undisturbed
    assert killed >= 3
