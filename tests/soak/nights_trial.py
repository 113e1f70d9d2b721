"""Nights of `warmstart retrain` that are killed at random moments end as undisturbed ones, bit for bit.

A trial draws what arrives, the method and the gate; it kills the night up to four times, and then lets it finish.
"""

import os
import random
import shutil
import signal
import time
from contextlib import suppress

from nights import arrive, content, night, restore
from warmstart.errors import WorkFailedError
from warmstart.runs import run as run_module

METHODS = ("dash", "warm", "cold", "shrink-perturb", "hare-tortoise", "redo", "l2-init", "fire")
GATES = ({"promote": "always"}, {"promote": "margin"}, {"promote": "better", "max_churn": 0.1}, {"cold_every": 1})


def trial(seed, number, folder):
    """One night, killed and passed again.

    Returns:
        How often it was killed, and what was wrong or None.
    """
    chance = random.Random(f"{seed} nights {number}")
    run_module.SAVE_EVERY = -1.0 if chance.random() < 0.7 else 60.0
    data, state, before = folder / "data", folder / "state", folder / "before"
    settings = {"method": chance.choice(METHODS), "lr": chance.choice((0.003, 0.01, 30.0)), **chance.choice(GATES)}
    end = chance.randint(40, 80)
    arrive(data, 0, end)
    if chance.random() < 0.8:
        in_a_child(lambda: night(data, state, method=settings["method"]))
        arrive(data, end, end + chance.randint(8, 40))
    state.mkdir(exist_ok=True)
    shutil.copytree(state, before, symlinks=True)
    began = time.monotonic()
    in_a_child(lambda: night(data, state, keep=1, **settings))
    seconds, undisturbed = time.monotonic() - began, content(state)
    restore(before, state)
    kills = 0
    for _ in range(chance.randint(1, 4)):
        kills += in_a_child(lambda: night(data, state, keep=1, **settings), chance.uniform(0, seconds)) < 0
    in_a_child(lambda: night(data, state, keep=1, **settings))
    after = content(state)
    differing = sorted(name for name in after.keys() | undisturbed.keys() if after.get(name) != undisturbed.get(name))
    return kills, f"{settings}: {differing}" if differing else None


def in_a_child(work, seconds=None):
    """Do something in a process of its own, which is killed after so many seconds if it is not done; its exit code."""
    if (child := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with suppress(WorkFailedError):
            work()
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
