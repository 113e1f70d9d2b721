"""Grids that are killed, interrupted and started again must end with the undisturbed numbers, and leave nothing behind.

A trial starts one grid, ends it up to four times in a random way at a random moment, then lets it finish.
"""

import os
import random
import signal
import time
from contextlib import suppress

import psutil

from commands import numbers

WAYS = ("kill", "kill", "kill", "interrupt", "terminate", "worker", "at a write", "at a write")
LEFT_SECONDS = 30.0


def trial(grid, seed, number, folder, reference, seconds):
    """One grid, killed and started again; undisturbed it takes so many seconds.

    Returns:
        How often it was killed, and what was wrong or None.
    """
    chance, out = random.Random(f"{seed} kills {number}"), folder / "out"
    kills = 0
    for _ in range(chance.randint(1, 4)):
        way, began = chance.choice(WAYS), time.monotonic()
        process = grid.start(out)
        with suppress(psutil.NoSuchProcess):
            _wait(process, out, way, chance.uniform(0.0, seconds))
        if process.poll() is not None:
            process.communicate()
            break  # it was done before
        kills += 1
        problem = _end(process, way, chance, grid)
        if problem:
            return kills, f"{way} after {time.monotonic() - began:.2f} s: {problem}"
    process = grid.start(out)
    try:
        _, err = process.communicate(timeout=300)
    except TimeoutError:
        return kills, "did not end when it was left alone"
    if process.returncode != 0:
        return kills, f"code {process.returncode} when it was left alone: {err[-600:]}"
    if numbers(out) != reference:
        return kills, "other numbers than undisturbed"
    if left := list(out.rglob("*.warmstart-tmp")):
        return kills, f"left {left}"
    return kills, None


def _wait(process, out, way, seconds):
    """Wait for the moment, or for a file that is just being replaced after it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    give_up = time.monotonic() + 5
    while way == "at a write" and process.poll() is None and time.monotonic() < give_up:
        if any(out.rglob("*.warmstart-tmp")):
            return


def _end(process, way, chance, grid):
    """End a grid; what was wrong with how it ended, or None."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        expected = _strike(process, way, chance, family)
    try:
        _, err = process.communicate(timeout=LEFT_SECONDS * 2)
    except Exception:
        return "did not end"
    _, alive = psutil.wait_procs(family, timeout=LEFT_SECONDS)
    names = [one.name() for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    for one in alive:  # ours: its parent was started here
        with suppress(psutil.NoSuchProcess):
            one.kill()
    if names and grid.name != "ray":  # whose own processes outlive a kill for a while
        return f"processes left: {names}"
    if grid.name in ("ray", "torchrun"):  # which say much of their own
        return None
    # Before Python has come to our first line, which installs the handler, nothing can answer: its own traceback shows.
    if process.returncode in (-2, -15) and ", in main\n" not in err:
        return None
    if process.returncode not in expected:
        return f"code {process.returncode}: {err[-600:]}"
    if "Traceback" in err or "ignored" in err:
        return err[-600:]
    return None


def _strike(process, way, chance, family):
    """Kill it in this way; the codes that may follow: 0 where it was just done."""
    if way == "interrupt":
        os.killpg(process.pid, signal.SIGINT)
        return 130, 0
    if way == "terminate":
        process.send_signal(signal.SIGTERM)
        return 130, 0
    if way == "worker" and family:
        with suppress(psutil.NoSuchProcess):
            chance.choice(family).send_signal(signal.SIGKILL)
        return 1, 0
    os.killpg(process.pid, signal.SIGKILL)
    return -9, 0
