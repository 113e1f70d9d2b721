"""A sample of every kind of trial; `make soak` tries as many as one likes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNTS = {"data": 10, "commands": 10, "tampering": 10, "kills": 2, "nights": 3, "disk": 1}


@pytest.mark.skipif(os.name != "posix", reason="it forks")
@pytest.mark.parametrize("kind", COUNTS)
def test_a_few_trials_of_each_kind_find_nothing(kind):
    paths = os.pathsep.join([str(HERE.parent), str(HERE.parent / "data"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, HERE / "soak.py", "--seed", "3", "--only", kind, "--count", str(COUNTS[kind])],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "left out" in done.stdout:
        pytest.skip(done.stdout.splitlines()[1])
    assert f"{kind}, {COUNTS[kind]} trials, " in done.stdout
