"""Methods over 2 and 4 processes give what they give in one, and a failure in one is an error in all; see worker.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

WORKER = Path(__file__).parent / "worker.py"
FAILURES = ("nan", "length", "empty", "loader", "graph")

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")


def hold(processes, *cases):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(WORKER), *cases], capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for case in cases:
        assert done.stdout.count(f"{case} holds") == processes, case


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_equal_one(kind):
    hold(2, *(f"{kind}-{case}" for case in ("equal", "unequal", "micro", "kernel", "neuron", "ema", "compiled")))


def test_the_inner_module_is_warned_of():
    """Its processes cannot be known, and each would draw noise of its own."""
    hold(2, "ddp-inner")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_what_goes_wrong_in_one_process_is_an_error_in_all_and_changes_nothing(kind):
    hold(2, *(f"{kind}-{case}" for case in FAILURES))


def test_outputs_of_a_sharded_grouped_transposed_convolution_are_refused_before_anything_changes():
    hold(2, "fsdp-grouped")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_methods_without_data_leave_two_processes_with_the_same_weights(kind):
    """Each process draws other numbers: the first one's count."""
    hold(2, *(f"{kind}-{case}" for case in ("noise", "generator", "blend", "cold", "pull", "refused")))


def test_four_processes_equal_one_with_replicas_too():
    hold(4, "ddp-unequal", "fsdp-unequal", "hsdp-equal", "hsdp-unequal", "hsdp-nan", "hsdp-noise", "hsdp-cold")
