"""WarmStart in two processes: see worker.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_two_processes_equal_one(tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("transformers")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here.parent, here, *sys.path)))}
    command = [*torchrun, here / "worker.py", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for rank in range(2):  # both write to one pipe, perhaps onto one line
        assert f"process {rank} is done" in ended.stdout
    assert ended.stdout.count("dash(alpha=0.3") == 4  # process 0 alone speaks
