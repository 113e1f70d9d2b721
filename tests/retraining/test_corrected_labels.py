"""A label that is corrected: the image goes on under its new class alone, and back if that was a mistake."""

import sqlite3

import pytest

from nights import arrive, current, night, rows, said, stages
from warmstart.retraining import attempts
from warmstart.retraining.attempts import Attempts
from warmstart.retraining.night_task import _without_gaps


@pytest.fixture
def data(tmp_path):
    arrive(tmp_path / "data", 0, 100)
    return tmp_path / "data"


@pytest.fixture
def state(data, tmp_path):
    """A promoted stage."""
    night(data, tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def learnt(monkeypatch):
    """The classes of what is trained on and tested, of each training."""
    found, plain = [], Attempts.job

    def job(attempts_, row, settings):
        made = plain(attempts_, row, settings)
        labels = [*made.data.train.labels.tolist(), *made.data.test.labels.tolist()]
        found.append({made.classes[label]: labels.count(label) for label in set(labels)})
        return made

    monkeypatch.setattr(Attempts, "job", job)
    return found


def total(state, stage):
    return stages(state)[stage]["seen"] + stages(state)[stage]["held_out"]


def test_images_of_a_renamed_class_are_learnt_under_the_new_name_alone_and_may_go_back(data, state, learnt):
    threes = len(list((data / "3").iterdir()))
    (data / "3").rename(data / "three")
    night(data, state)
    assert (total(state, 2), stages(state)[2]["arrived"]) == (100, threes)
    assert (learnt[-1]["three"], learnt[-1].get("3")) == (threes, None)
    assert said(state, "withdrawn") == [
        f"{threes} examples under another class now; training goes on with that one alone"
    ]
    assert not said(state, "gone")

    (data / "three").rename(data / "3")
    night(data, state)
    assert total(state, 3) == 100
    assert (learnt[-1].get("three"), learnt[-1]["3"]) == (None, threes)
    night(data, state)
    assert current(state) == max(stages(state)) == 3


def test_where_a_copy_is_left_under_the_old_class_nothing_is_withdrawn(data, state):
    first, second = sorted((data / "3").iterdir())[:2]
    second.write_bytes(first.read_bytes())
    arrive(data, 100, 115)
    night(data, state)  # two copies of the first
    second.rename(data / "8" / "moved.png")
    arrive(data, 115, 130)
    night(data, state)
    assert not said(state, "withdrawn")
    assert current(state) == 3


def test_a_night_that_was_interrupted_ends_without_what_was_withdrawn(data, state, learnt, monkeypatch):
    (data / "3").rename(data / "three")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "write_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(data, state)
    night(data, state)
    assert (total(state, 2), current(state)) == (100, 2)
    assert "3" not in learnt[-1]


def test_all_classes_may_be_renamed_after_several_stages(data, state):
    arrive(data, 100, 115)
    night(data, state)
    for folder in list(data.iterdir()):
        folder.rename(data / f"digit {folder.name}")
    night(data, state)
    assert (total(state, 3), current(state)) == (115, 3)
    assert stages(state)[3]["new"] == stages(state)[3]["seen"]
    for file in sorted((data / "digit 3").iterdir())[:3]:
        file.rename(data / "digit 4" / file.name)
    night(data, state)
    assert (total(state, 4), current(state)) == (115, 4)


def test_an_index_from_before_has_nothing_withdrawn(data, state):
    with sqlite3.connect(state / "index.sqlite") as database:
        database.execute("DROP TABLE withdrawn")
    database.close()
    (data / "3").rename(data / "three")
    night(data, state)
    assert total(state, 2) == 100
    assert {row["stage"] for row in rows(state, "SELECT stage FROM withdrawn")} == {2}


@pytest.mark.parametrize("method", ["dash", "shrink-perturb", "fire"])
def test_a_stage_may_lose_its_only_image(data, state, method):
    place = 104  # of the training part
    arrive(data, place, place + 1)
    (image,) = data.glob(f"*/{place:04}.png")
    wrong = data / str((int(image.parent.name) + 1) % 10) / image.name
    image.rename(wrong)
    night(data, state, method=method)
    assert stages(state)[2]["held_out"] == stages(state)[1]["held_out"]

    wrong.rename(image)
    night(data, state, method=method)
    assert current(state) == 3
    assert total(state, 3) == 101
    arrive(data, 110, 130)
    night(data, state, method=method)
    assert current(state) == 4


@pytest.mark.parametrize(
    ("arrivals", "filled"),
    [((104, 0, 1), (103, 1, 1)), ((104, 0, 0, 2), (102, 1, 1, 2)), ((1, 0, 50), (1, 1, 49)), ((0, 3), (1, 2))],
)
def test_a_stage_without_examples_has_one_of_the_largest(arrivals, filled):
    assert _without_gaps(arrivals) == filled


def test_a_label_that_is_corrected_over_two_nights_is_learnt_alone(data, state, learnt, tmp_path):
    (image, *_) = sorted((data / "3").iterdir())
    image.rename(tmp_path / "aside.png")
    night(data, state)  # gone, and nothing has come in its place
    assert said(state, "gone") == [f"1 example no longer in {data}; training goes on with them"]
    arrive(data, 100, 115)
    night(data, state)
    assert total(state, 2) == 115
    (tmp_path / "aside.png").rename(data / "8" / "corrected.png")
    night(data, state)
    if not stages(state).get(3):  # it is held out, and comes with what can be trained on
        arrive(data, 115, 120)
        night(data, state)
    assert said(state, "withdrawn") == ["1 example under another class now; training goes on with that one alone"]
    assert sum(learnt[-1].values()) == total(state, 3) in (115, 120)


def test_of_two_copies_the_one_with_the_right_label_is_left(data, state, learnt):
    (image, *_) = sorted((data / "3").iterdir())
    (data / "8" / "wrong.png").write_bytes(image.read_bytes())
    arrive(data, 100, 115)
    night(data, state)
    assert total(state, 2) == 116
    (data / "8" / "wrong.png").unlink()
    night(data, state)  # nothing has come: the next stage is the first without it
    assert said(state, "withdrawn") == ["1 example under another class now; training goes on with that one alone"]
    night(data, state)
    assert len(said(state, "withdrawn")) == 1
    arrive(data, 115, 130)
    night(data, state)
    assert (current(state), total(state, 3)) == (3, 130)


def test_nothing_is_withdrawn_where_all_that_has_arrived_is_deleted(data, state):
    (image, *_) = sorted((data / "3").iterdir())
    (data / "8" / "doubtful.png").write_bytes(image.read_bytes())
    arrive(data, 100, 115)
    night(data, state)
    for file in data.glob("*/*.png"):
        file.unlink()
    night(data, state)
    arrive(data, 115, 130)
    night(data, state)
    assert not said(state, "withdrawn")
    assert total(state, 3) == 131
