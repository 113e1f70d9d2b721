"""A small sample of tests/soak/commands_trial.py."""

import subprocess
import sys
from pathlib import Path

import pytest

TRIAL = Path(__file__).parents[1] / "soak" / "commands_trial.py"


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_odd_command_lines_end_in_one_line_and_a_known_code():
    done = subprocess.run(
        [sys.executable, TRIAL, "--count", "40", "--seed", "3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
