"""Each example runs as it stands, and started again it goes on from its checkpoints without acting twice."""

import logging
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS = {"lightning_callback": "lightning", "hugging_face": "transformers"}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("name", ["bare_loop", "lightning_callback", "hugging_face"])
def test_an_example_acts_once(name, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "warmstart")
    pytest.importorskip(NEEDS.get(name, "torch"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    first = caplog.text
    caplog.clear()
    assert first.count("neurons scaled by") == 1
    assert "a new fit: fresh optimizer state and schedule" in first
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert "neurons scaled by" not in caplog.text


def test_fsdp2_in_two_processes(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, EXAMPLES / "fsdp2.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "averaged 6 batches, 1,200 examples" in done.stdout
    assert "loss after training on both months" in done.stdout


def test_examples_are_short():
    lines = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert len(lines) >= 4
    assert max(lines.values()) <= 60, lines
