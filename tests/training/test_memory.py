import subprocess
import sys

import pytest
import torch
from made_stage import SETTINGS, made_examples, same_weights, seed_of

from networks import cnn
from warmstart.training import loop, memory
from warmstart.training.loop import Recipe, train_stage
from warmstart.training.memory import freed_memory_kept
from warmstart.training.optimizers import make_optimizer

CPU = torch.device("cpu")
on_glibc = pytest.mark.skipif(memory._glibc() is None, reason="needs glibc")


class Libc:
    def __init__(self):
        self.log = []

    def mallopt(self, parameter, value):
        self.log.append((parameter, value))

    def malloc_trim(self, pad):
        self.log.append("trim")


def test_the_usual_settings_are_back_whatever_happens_and_what_is_free_is_given_back(monkeypatch):
    libc = Libc()
    monkeypatch.setattr(memory, "_glibc", lambda: libc)

    def fail():
        with freed_memory_kept(CPU):
            assert libc.log == [(-1, -1), (-4, 0)]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert libc.log[2:] == [(-1, 2**26), (-4, 65536), "trim"]


@pytest.mark.parametrize(("device", "libc"), [("cpu", None), ("cuda", Libc()), ("mps", Libc())])
def test_nothing_happens_with_another_c_library_or_on_another_device(monkeypatch, device, libc):
    monkeypatch.setattr(memory, "_glibc", lambda: libc)
    with freed_memory_kept(torch.device(device)):
        assert libc is None or libc.log == []


FAULTS = """
import resource
import torch
from warmstart.training.memory import freed_memory_kept

def faults_of_ten_blocks():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)  # 64 MiB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept(torch.device("cpu")):
    faults_of_ten_blocks()
    print(faults_of_ten_blocks())
"""


@on_glibc
def test_large_blocks_come_back_without_new_pages():
    # In a process of its own: in this one another test may have been refused memory, after which glibc serves the
    # thread from an arena that keeps no block of this size.
    faults = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout

    assert int(faults) < 16_384  # not even those of one


def test_no_number_changes(monkeypatch):
    def trained():
        model = cnn()
        optimizer = make_optimizer(Recipe(optimizer="sgd", **SETTINGS), model)
        train_stage(model, optimizer, made_examples(20), Recipe(batch_size=8, epochs=3), seed_of=seed_of)
        return model

    kept = trained()
    monkeypatch.setattr(loop, "freed_memory_kept", lambda device: memory.freed_memory_kept(torch.device("cuda")))
    assert same_weights(kept, trained())
