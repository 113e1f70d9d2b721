"""Trials of everything that may go wrong, for as long as asked: `make soak MINUTES=60 SEED=1 ONLY=kills,data`.

Each trial is made from the seed, its kind and its number, and a failing one is tried again by `FIRST=number COUNT=1`.
Kinds take turns, so that any length of time tries each of them.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import commands_trial
import data_inputs
import disk_full
import kills
import nights_trial
import tampering

from commands import rows, wait_until
from grids import Grid, grids

HERE = Path(__file__).parent
KINDS = ("kills", "nights", "data", "commands", "tampering", "disk", "lines")


@dataclass
class Kind:
    """One kind of trial, and what has come of it."""

    name: str
    turn: int
    """How many trials in a turn: a few seconds' worth."""
    attempt: Callable[[int, Path], tuple[int, str | None]]
    """``attempt(number, folder)``: how many events (kills, inputs) it tried, and what was wrong or None."""
    tried: Counter[str] = field(default_factory=Counter)


def main() -> int:
    """Try until the time is over or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--only", default=",".join(KINDS), help=f"some of {','.join(KINDS)}")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first trial")
    parser.add_argument("--count", type=int, help="trials of each kind, instead of minutes")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="warmstart-soak-") as folder:
        kinds = _kinds(given.only.split(","), given.seed, Path(folder))
        try:
            _take_turns(kinds, given, Path(folder))
        except KeyboardInterrupt:
            print("stopped")
    for kind in kinds:
        print(", ".join([kind.name, *(f"{count:,} {what}" for what, count in kind.tried.items())]))
    return int(any(kind.tried["failures"] for kind in kinds))


def _take_turns(kinds: list[Kind], given: argparse.Namespace, folder: Path) -> None:
    began, said, numbers = time.monotonic(), time.monotonic(), Counter({kind.name: given.first for kind in kinds})
    while kinds:
        for kind in kinds:
            for _ in range(kind.turn):
                number = numbers[kind.name]
                if given.count is not None and number >= given.first + given.count:
                    break
                numbers[kind.name] += 1
                place = folder / f"{kind.name}-{number}"
                place.mkdir()
                events, problem = kind.attempt(number, place)
                kind.tried["trials"] += 1
                kind.tried["events"] += events
                kind.tried["failures"] += problem is not None
                if problem:
                    print(f"{kind.name} {number} (seed {given.seed}): {ascii(problem)[:1500]}", flush=True)
                shutil.rmtree(place, ignore_errors=True)
        if time.monotonic() - said > 60:
            said = time.monotonic()
            print(f"{(said - began) / 60:.0f} min: {dict(numbers)}", flush=True)
        if given.count is None:
            if time.monotonic() - began > 60 * given.minutes:
                return
        elif all(numbers[kind.name] >= given.first + given.count for kind in kinds):
            return


def _kinds(names: list[str], seed: int, folder: Path) -> list[Kind]:
    makers = {
        "kills": _kills,
        "nights": _nights,
        "data": _data,
        "commands": _commands,
        "tampering": _tampering,
        "disk": _disk,
        "lines": _lines,
    }
    if unknown := set(names) - set(makers):
        sys.exit(f"ONLY={','.join(unknown)}: choose from {', '.join(makers)}")
    if {"commands", "tampering"} & set(names):
        commands_trial.prepare()
    made = [makers[name](seed, folder) for name in names]
    return [kind for kind in made if kind is not None]


def _kills(seed: int, folder: Path) -> Kind:
    every = grids(folder)
    order = [every[index] for index in (0, 1, 2, 0, 1, 3, 0, 1, 2, 4)]  # torchrun and Ray take ten times as long

    def attempt(number: int, place: Path) -> tuple[int, str | None]:
        grid = order[number % len(order)]
        killed, problem = kills.trial(grid, seed, number, place, *grid.undisturbed(folder))
        return killed, problem and f"{grid.name}: {problem}"

    return Kind("kills", 1, attempt)


def _nights(seed: int, folder: Path) -> Kind:
    return Kind("nights", 2, lambda number, place: nights_trial.trial(seed, number, place))


def _data(seed: int, folder: Path) -> Kind:
    worker = data_inputs.Worker()

    def attempt(number: int, place: Path) -> tuple[int, str | None]:
        return 1, worker.try_input(data_inputs.damaged_input(seed, number, place))

    return Kind("data", 200, attempt)


def _commands(seed: int, folder: Path) -> Kind:
    return Kind("commands", 30, lambda number, place: (1, commands_trial.trial(seed, number, place)))


def _tampering(seed: int, folder: Path) -> Kind:
    grid = replace(grids(folder)[0], name="plain", often=False)  # as the command is when it is run in a fork
    prepared: dict[str, Path] = {}

    def prepare() -> None:
        grid.undisturbed(folder)
        prepared["done"] = folder / grid.name.replace(" ", "-")
        half = folder / "half"
        process = grid.start(half)
        wait_until(lambda: (half / "results.csv").exists() and len(rows(half)) > 8, 120)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        prepared["half"] = half

    def attempt(number: int, place: Path) -> tuple[int, str | None]:
        if not prepared:
            prepare()
        reference, _ = grid.undisturbed(folder)
        return 1, tampering.trial(prepared, grid.arguments, seed, number, place, reference)

    return Kind("tampering", 10, attempt)


def _disk(seed: int, folder: Path) -> Kind | None:
    if not disk_full.available():
        print("disk: no small file system can be mounted here; left out", flush=True)
        return None
    grid: Grid = grids(folder)[0]
    return Kind(
        "disk", 1, lambda number, place: (1, disk_full.trial(grid, seed, number, place, grid.undisturbed(folder)[0]))
    )


def _lines(seed: int, folder: Path) -> Kind:
    """An exception at every line of every method and of what saves: the tests of that, unsampled; once."""
    files = ("methods/test_interrupted.py", "integrations/test_interrupted_loops.py")

    def attempt(number: int, place: Path) -> tuple[int, str | None]:
        if number > 0:
            return 0, None
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        whole = {**os.environ, "WARMSTART_EVERY_LINE": "1"}
        ended = subprocess.run(command, cwd=HERE.parent, env=whole, capture_output=True, text=True)
        print(f"lines: {ended.stdout.strip().splitlines()[-1]}", flush=True)
        return 1, None if ended.returncode == 0 else ended.stdout[-1500:]

    return Kind("lines", 1, attempt)


if __name__ == "__main__":
    sys.exit(main())
