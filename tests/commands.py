"""The command line in tests: run here, or started as a process of its own; and what it has measured."""

import csv
import os
import signal
import subprocess
import sys
import time

from warmstart.cli.app import run

SMALL = ["--stages", "2", "--stage-size", "30", "--seeds", "2", "--until", "0.9", "--device", "cpu", "--threads", "1"]
"""A stream of digits that trains in a fraction of a second."""


def warmstart(*arguments):
    """Run a command in this process; its exit code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return run([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


def start(*arguments, cwd=None):
    """Start a command as a process of its own, in a process group of its own, as a terminal does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "warmstart", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for_plan(process):
    """Wait until a comparison holds its lock and is about to work."""
    for line in process.stderr:
        if " methods x " in line:
            return
    raise AssertionError(f"ended with {process.wait()} before it began")


def wait_until(condition, seconds=60):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def rows(out):
    """What results.csv says, as text."""
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(out):
    """What must be equal whenever a comparison is repeated: all but the seconds."""
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in rows(out)]
