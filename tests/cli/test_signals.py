"""Ctrl-C and SIGTERM at any moment of a command: one line, code 130, and never a traceback."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from commands import SMALL, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

AT_AN_IMPORT = """
import os, signal, sys
at, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
count = 0
def hook(event, arguments):
    global count
    if event == "import" and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # as soon as main begins
        count += 1
        if count == at:
            os.kill(os.getpid(), number)
sys.addaudithook(hook)
from warmstart.cli.main import main
main()
"""


def ended_well(process):
    """Whether a command that was interrupted is done, or says in one line that it is stopped."""
    _, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if line.startswith("warmstart:")]
    assert process.returncode in (0, 130), err
    assert "Traceback" not in err
    assert "ignored" not in err
    assert len(said) == (process.returncode == 130)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 2, 10, 40, 150, 400, 1000])
def test_an_interrupt_among_the_imports_ends_the_command_at_once(at, number):
    program = [sys.executable, "-c", AT_AN_IMPORT, str(at), str(int(number)), "methods"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "warmstart: stopped before anything began\n")


IN_WORK = """
import os, sys, warmstart.interruption as interruption
from warmstart.cli.main import main
module = sys.argv.pop()
def hook(event, arguments):
    if event == "import" and interruption._working and arguments[0] == module:
        os.kill(os.getpid(), 2)
sys.addaudithook(hook)
main()
"""


@pytest.mark.parametrize("module", ["torch._dynamo", "sympy.printing"])
def test_an_interrupt_in_an_import_of_the_work_waits_for_its_end(tmp_path, module):
    """In the middle of torch's imports a KeyboardInterrupt may abort the process (SIGABRT)."""
    program = [sys.executable, "-c", IN_WORK, "compare", *SMALL, "--jobs", "1", "--out", tmp_path / "out", module]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ended_well(process) == 130


AT_ITS_END = """
import atexit, os, signal, sys, warmstart.cli.main as entry
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
class Last:
    def __del__(self, interrupt=interrupt):
        interrupt()
sys.last = Last()
answer = entry.answer_signals
entry.answer_signals = lambda: (atexit.register(interrupt), answer()) if sys.argv.pop(1) == "atexit" else answer()
entry.main()
"""


@pytest.mark.parametrize("where", ["atexit", "modules"])
def test_an_interrupt_while_python_ends_does_not_undo_what_is_done(where):
    """Where the last of the exit functions have run, and where modules are taken apart."""
    program = [sys.executable, "-c", AT_ITS_END, where, "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("warmstart ")


AT_WORK = """
import os, signal, sys, time
from warmstart.cli import main as entry
from warmstart.grids import carry_out
begin = carry_out.begin_work
class Ignored:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(100_000))
def begin_and_interrupt():
    begin()
    Ignored()  # a destructor, in which Python ignores what is raised
    time.sleep(30)
    os._exit(3)  # nothing came
carry_out.begin_work = begin_and_interrupt
entry.main()
"""


def test_an_interrupt_that_python_ignores_comes_again(tmp_path):
    program = [sys.executable, "-c", AT_WORK, "compare", *SMALL, "--jobs", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "warmstart: stopped; the same command goes on from here\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["methods", "compare"])
def test_an_interrupt_at_a_random_moment(tmp_path, command, number):
    """Until our own first line has run, 20 to 40 ms after the start, Python answers by itself: that is not counted."""
    moments = random.Random(f"{command} {number}")
    flags = {"compare": [*SMALL, "--jobs", "1", "--out", tmp_path / "out"]}
    for _ in range(3):
        process = start(command, *flags.get(command, []))
        handles_signals(process.pid)
        time.sleep(moments.uniform(0, 1.5))
        os.kill(process.pid, number)
        ended_well(process)


def handles_signals(pid):
    """Wait until a process has a handler of its own for SIGTERM, which Python itself has not."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with open(f"/proc/{pid}/status") as status:
            caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError("it does not answer SIGTERM")
