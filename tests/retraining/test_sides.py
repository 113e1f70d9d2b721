"""On which side an image is, trained on or held out: its pixels decide, whatever its class, and for ever."""

import hashlib
import shutil
import sqlite3

import pytest
import torch
from safetensors.torch import load_file, save

from nights import DIGITS, arrive, current, night, stages
from warmstart.retraining import snapshots
from warmstart.retraining.checking import check
from warmstart.retraining.state import StateFolder


@pytest.fixture
def data(tmp_path):
    arrive(tmp_path / "data", 0, 100)
    return tmp_path / "data"


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def sides(state):
    """Pixels -> the sides on which they are, in all snapshots."""
    found = {}
    for number, row in stages(state).items():
        arrived = snapshots.read(state / f"data/{number:04}.safetensors", row["data_sha256"])
        for image, held_out in zip(arrived.images, arrived.held_out.tolist(), strict=True):
            found.setdefault(image.numpy().tobytes(), []).append(held_out)
    return found


def written_by_the_first_version(state):
    """The snapshot of stage 1 without what later versions say of pixels and sides."""
    file = state / "data/0001.safetensors"
    tensors = load_file(file)
    content = save({name: tensors[name] for name in ("images", "labels", "digests")})
    file.write_bytes(content)
    with sqlite3.connect(state / "index.sqlite") as database:
        sha256 = hashlib.sha256(content).hexdigest()
        database.execute("UPDATE stages SET data_sha256 = ? WHERE number = 1", (sha256,))
    database.close()


@pytest.mark.parametrize("version", ["now", "first"])
def test_an_image_of_another_class_stays_on_its_side(data, state, version):
    night(data, state)
    if version == "first":
        written_by_the_first_version(state)
    before = sides(state)
    (data / "3").rename(data / "three")
    (data / "4").rename(data / "four")
    arrive(data, 100, 115)
    night(data, state)

    after = sides(state)
    twice = [found for found in after.values() if len(found) > 1]
    assert len(twice) > 15
    assert all(len(set(found)) == 1 for found in twice)
    assert {True, False} == {found[0] for found in twice}
    assert all(after[pixels][0] == found[0] for pixels, found in before.items())
    assert current(state) == 2
    assert stages(state)[2]["seen"] == sum(not found[0] for found in after.values())


def test_the_sides_of_a_state_from_before_are_what_they_were(data, state):
    night(data, state)
    digests = snapshots.read(state / "data/0001.safetensors", stages(state)[1]["data_sha256"]).digests
    written_by_the_first_version(state)
    first = snapshots.read(state / "data/0001.safetensors", stages(state)[1]["data_sha256"])
    number = [int.from_bytes(bytes(one[:4].tolist()), "big") for one in digests]
    assert first.held_out.tolist() == [one % 5 == 0 for one in number]
    assert torch.equal(first.digests, digests)


def test_test_sets_are_kept_as_long_as_the_weights_of_their_stages(data, state, tmp_path):
    test = tmp_path / "test"
    for night_ in range(4):
        arrive(test, 200 + night_, 230)
        arrive(test, 230, 231 + night_)
        arrive(data, 100 + night_, 101 + night_)
        night(data, state, test=str(test), keep=2)
    kept = [row["test_file"] for row in stages(state).values() if row["kept"]]
    assert len(set(kept)) == 2
    assert {file.name for file in state.glob("data/test-*")} == set(kept)
    folder = StateFolder(state)
    with folder.opened() as index:
        assert check(folder, index) == (4 + 2 + 2 * 2, [])


def test_copies_of_test_images_are_not_trained_on_whatever_their_class(data, state, tmp_path):
    test = tmp_path / "test"
    arrive(test, 200, 230)
    shutil.copy(next((test / "1").glob("*.png")), data / "2" / "copy of a test image.png")
    arrive(tmp_path / "trained", 0, 1)
    night(data, state, test=str(test))
    assert (stages(state)[1]["seen"], stages(state)[1]["held_out"]) == (100, 30)

    first = DIGITS.classes[DIGITS.train_labels[0]]
    shutil.copy(tmp_path / "trained" / first / "0000.png", test / "9" / "trained on.png")
    arrive(data, 100, 115)
    night(data, state, test=str(test))
    assert (stages(state)[2]["seen"], stages(state)[2]["held_out"]) == (115, 30)
