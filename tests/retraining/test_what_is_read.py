"""What a night reads of all that has arrived, and how much of it lies in memory."""

import gc
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nights import arrive, night, rows, said, stages
from warmstart.processes import Team
from warmstart.retraining import attempts
from warmstart.retraining.training import Helpers, train_along

IMAGE = 8 * 8
"""Bytes of an image."""


@pytest.fixture
def state(tmp_path):
    """Two promoted stages, and data for a third."""
    for end in (60, 75):
        arrive(tmp_path / "data", 0, end)
        night(tmp_path / "data", tmp_path / "state")
    arrive(tmp_path / "data", 75, 90)
    return tmp_path / "state"


@pytest.fixture
def reads(monkeypatch):
    """How often each snapshot and test set is read from now on, by the first word of its name."""
    found, plain = Counter(), Path.read_bytes

    def read_bytes(path):
        if path.suffix == ".safetensors" and path.parent.name == "data":
            found[path.stem.partition("-")[0]] += 1
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return found


@pytest.fixture
def judged(monkeypatch):
    """The first training that is judged is rejected, others are not; the bytes of all images in memory at each."""
    found, plain = [], attempts.judge_candidate

    def judge(*given):
        found.append(bytes_of_images())
        verdict = plain(*given)
        return replace(verdict, objections=("no good",)) if len(found) == 1 else verdict

    monkeypatch.setattr(attempts, "judge_candidate", judge)
    return found


def bytes_of_images():
    """How many bytes all images take that lie in memory, each that several tensors show counted once."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
    storages = [one.untyped_storage() for one in tensors if one.dtype == torch.uint8 and one.dim() == 4]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def trainings(state, stage):
    return {row["attempt"] for row in rows(state, "SELECT attempt FROM runs WHERE stage = ?", stage)}


def test_a_night_of_three_trainings_reads_what_has_arrived_once(state, judged, reads):
    night(state.with_name("data"), state, cold_every=3)

    assert trainings(state, 3) == {"first", "slower", "cold"}
    assert stages(state)[3]["attempt"] == "slower"
    assert reads == {"0001": 1, "0002": 1, "0003": 1}


def test_a_test_set_is_read_once_too(tmp_path, judged, reads):
    data, state, test = (tmp_path / name for name in ("data", "state", "test"))
    arrive(data, 0, 60)
    arrive(test, 50, 90)
    night(data, state, test=str(test), cold_every=1)

    assert trainings(state, 1) == {"first", "slower", "cold"}
    assert (stages(state)[1]["seen"], stages(state)[1]["held_out"]) == (50, 40)
    assert reads == {"0001": 1, "test": 1}


def test_a_stage_that_goes_on_from_an_earlier_one_than_it_should_reads_no_more(state, judged, reads):
    (state / "stages/0002/checkpoint.safetensors").write_bytes(b"damaged")
    night(state.with_name("data"), state, cold_every=3)

    assert said(state, "damaged")[0].endswith("stage 3 goes on from stage 1")
    assert stages(state)[3]["new"] == stages(state)[3]["seen"] - stages(state)[1]["seen"]
    assert trainings(state, 3) == {"first", "slower", "cold"}
    assert reads == {"0001": 1, "0002": 1, "0003": 1}


def test_a_stage_that_was_interrupted_is_finished_with_one_reading(state, judged, reads, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "write_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(state.with_name("data"), state)
    reads.clear()
    night(state.with_name("data"), state, cold_every=3)

    (resumed,) = said(state, "resumed")
    assert resumed.startswith("going on with stage 3 as it began, with another cold_every than now")
    assert stages(state)[3]["state"] == "promoted"
    assert reads == {"0001": 1, "0002": 1, "0003": 1}


def test_after_each_training_the_images_lie_in_memory_once(state, judged):
    before = bytes_of_images()
    night(state.with_name("data"), state)
    assert [bytes_ - before for bytes_ in judged] == [90 * IMAGE] * 2


def test_another_process_reads_what_has_arrived_once_for_all_trainings_of_a_stage(state, judged, reads, monkeypatch):
    told, plain = [], Helpers.train

    def train(helpers, job, attempt, *others):
        told.append(pickle.dumps((job, attempt)))
        return plain(helpers, job, attempt, *others)

    class OfSeveral(Team):
        def broadcast(self, value):
            return pickle.loads(told.pop(0)) if told else None

    monkeypatch.setattr(Helpers, "train", train)
    night(state.with_name("data"), state, cold_every=3)
    assert len(told) == 3
    reads.clear()
    train_along(OfSeveral())
    assert not told
    assert reads == {"0001": 1, "0002": 1, "0003": 1}
