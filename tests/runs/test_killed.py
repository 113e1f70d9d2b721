"""A run whose process is killed again and again gives what an undisturbed one gives."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killed_run import make_run

from stateful_methods import METHODS
from warmstart.runs import run as run_module
from warmstart.storage import checkpoint
from warmstart.training import loop

HERE = Path(__file__).parent
FILE = "checkpoint.safetensors"


def run(method, folder, *moment):
    """The exit code, of a run that may be killed at a moment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(HERE.parent), *sys.path))}
    command = [sys.executable, HERE / "killed_run.py", method, folder, *map(str, moment)]
    return subprocess.run(command, env=environment, check=False).returncode


def saved(folder):
    (file,) = folder.rglob(FILE)
    return checkpoint.load(file)


def without_seconds(rows):
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_bits(tmp_path, monkeypatch, method):
    monkeypatch.setattr(run_module, "SAVE_EVERY", 1e9)
    monkeypatch.setattr(loop, "SEGMENT", 3)
    undisturbed = make_run(method, tmp_path / "undisturbed")
    undisturbed.go_on(lambda event: None)

    moments, folder = random.Random(4), tmp_path / "killed"
    inside = []
    for _ in range(4):
        if run(method, folder, moments.randint(1, 4), moments.uniform(0.001, 0.05)) == 0:  # a fast machine
            break
        inside.append(saved(folder).metadata["inside"] if list(folder.rglob(FILE)) else None)
    assert any(inside), "it was never killed in the midst of a stage"
    assert run(method, folder) == 0

    ours, theirs = saved(folder), saved(tmp_path / "undisturbed")
    assert without_seconds(ours.metadata["rows"]) == without_seconds(theirs.metadata["rows"])
    assert any(name.startswith("method.") for name in theirs.tensors)
    for mine, others in (
        (ours.model_state, theirs.model_state),
        (ours.tensors, theirs.tensors),
        (momenta(ours), momenta(theirs)),
    ):
        assert mine.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in mine.items())


def momenta(loaded):
    return {key: state["momentum_buffer"] for key, state in loaded.optimizer_state["state"].items()}
