"""The grids that the trials disturb: how each is started, and the numbers that it must end with."""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commands import numbers

LONG = shlex.split(
    "--stages 3 --stage-size 60 --seeds 2 --until 1.0 --max-epochs 12 --batch-size 8 --device cpu --threads 1"
)
STATEFUL = "cold,dash,shrink-perturb[variant=dohare],stateful_methods:AgeAndRedraw"
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable)
OFTEN = """
import sys
import time
from warmstart.cli.main import main
from warmstart.runs import run
from warmstart.training import loop
run.SAVE_EVERY, loop.SEGMENT = 0.05, 3
sys.argv = ["warmstart", *sys.argv[1:]]
main()
"""
"""The command, saving in mid-stage too, as it does of itself after a minute."""


@dataclass(frozen=True)
class Grid:
    """A command without ``--out``, and what starts it."""

    name: str
    arguments: tuple[str, ...]
    launcher: tuple[str, ...] = ()
    often: bool = True
    """Whether runs save in mid-stage; workers are processes of their own, and do so after a minute."""

    def start(self, out, **more):
        """Start it as a process of its own, in a session of its own."""
        this = ("-c", OFTEN) if self.often else ("-m", "warmstart")
        launched = ["-m", *self.launcher] if self.launcher else []
        return subprocess.Popen(
            [sys.executable, *launched, *this, *self.arguments, "--out", str(out)],
            cwd=Path(__file__).parents[1],  # where the methods lie
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            **more,
        )

    def undisturbed(self, folder):
        """Its numbers when nothing happens to it, and the seconds that it takes; computed once in a folder."""
        out, seconds = (folder / f"{self.name.replace(' ', '-')}{end}" for end in ("", ".seconds"))
        if not seconds.exists():
            began, process = time.monotonic(), self.start(out)
            _, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            seconds.write_text(str(time.monotonic() - began))
        return numbers(out), float(seconds.read_text())


def grids(folder):
    """All of them; one file of made-up data is written into the folder."""
    data, random = folder / "small.npz", np.random.default_rng(0)
    parts = {"train": 60, "test": 20}
    images = {f"x_{part}": random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for part, n in parts.items()}
    np.savez(data, **images, **{f"y_{part}": np.arange(n) % 10 for part, n in parts.items()})
    one = ("compare", *LONG, "--methods", STATEFUL)
    reproduced = shlex.split(
        "--protocol reduced --model small-cnn --stages 2 --stage-size 20 --batch-size 8 --max-epochs 2 "
        "--methods cold,dash,fire --optimizers sgd,sam --seeds 2 --device cpu --threads 1 --jobs 2"
    )
    small = ("compare", *LONG, "--methods", "warm,dash", "--seeds", "2")
    return [
        Grid("one process", (*one, "--jobs", "1")),
        Grid("two workers", (*one, "--jobs", "2"), often=False),
        Grid("reproduce", ("reproduce", "cifar10", "--data", str(data), *reproduced), often=False),
        Grid("torchrun", ("compare", *LONG, "--methods", "warm,dash", "--seeds", "1"), TORCHRUN),
        Grid("ray", (*small, "--executor", "ray"), often=False),
    ]
