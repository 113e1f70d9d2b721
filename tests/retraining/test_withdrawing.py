"""Examples that are withdrawn by hand: out of training and tests, out of the state if asked for, and back."""

import os
import shutil

import pytest
from test_killed_nights import Boundaries, boundaries_of, in_a_child

from nights import arrive, content, current, night, restore, rows, said, shard, stages
from warmstart.errors import InputError, WorkFailedError
from warmstart.retraining import snapshots
from warmstart.retraining.attempts import Attempts
from warmstart.retraining.checking import check
from warmstart.retraining.retrain import roll_back
from warmstart.retraining.settings import NightSettings
from warmstart.retraining.state import StateFolder
from warmstart.retraining.withdrawing import readmit, withdraw


@pytest.fixture
def settings(state):
    return NightSettings.of({"state": str(state)})


@pytest.fixture
def learnt(monkeypatch):
    """The digests of the pixels that are trained on or tested, of the latest training."""
    found, plain = set(), Attempts.job

    def job(attempts, row, settings):
        made = plain(attempts, row, settings)
        found.clear()
        for part in (made.data.train, made.data.test):
            found.update(snapshots.split_rows(part.pixels))
        return made

    monkeypatch.setattr(Attempts, "job", job)
    return found


def arrived(state, stage):
    """What the snapshot of a stage holds."""
    return snapshots.read(StateFolder(state).snapshot(stage), stages(state)[stage]["data_sha256"])


def bad_images(data, tmp_path, count=5):
    """Copies of images that have arrived, under other names and in no class, and their digests."""
    (tmp_path / "bad" / "deeper").mkdir(parents=True)
    files = sorted(data.glob("*/*.png"))[:count]
    for place, file in enumerate(files):
        shutil.copy(file, tmp_path / "bad" / "deeper" / f"copy{place}.png")
    return tmp_path / "bad", files


def test_what_came_with_a_stage_is_left_out_of_the_next_one_and_does_not_come_again(data, state, settings, learnt):
    bad = set(snapshots.split_rows(arrived(state, 2).pixels))
    withdraw(settings, ["2"])
    assert said(state, "withdrawn") == [
        "15 examples of stage 2 withdrawn: neither trained on nor tested from the next stage on"
    ]
    night(data, state)
    assert current(state) == 2  # nothing has come

    arrive(data, 75, 90)
    night(data, state)
    assert stages(state)[3]["seen"] + stages(state)[3]["held_out"] == 75
    assert not bad & learnt
    assert len(arrived(state, 2)) == 15  # it is kept as it arrived


def test_images_are_known_by_their_pixels_wherever_their_copies_lie(data, state, settings, learnt, tmp_path):
    folder, files = bad_images(data, tmp_path)
    withdraw(settings, [str(folder)])
    assert said(state, "withdrawn")[-1].startswith("5 examples of stage 1")
    for file in files:
        file.unlink()
    arrive(data, 75, 90)
    night(data, state)
    assert not said(state, "gone")  # nothing goes on with them
    assert len(learnt) == 85

    withdraw(settings, [str(folder / "deeper" / "copy0.png")])
    assert said(state, "withdrawn")[-1] == "all of it is withdrawn already"


def test_one_that_is_corrected_arrives_under_its_new_class(data, state, settings, learnt):
    withdraw(settings, ["2"])
    (data / "3").rename(data / "three")
    night(data, state)
    brought = {row["class"]: row for row in rows(state, "SELECT * FROM files")}
    assert "three" in brought
    assert stages(state)[3]["seen"] + stages(state)[3]["held_out"] > 60  # those of stage 2 with a new class came


def test_what_is_readmitted_arrives_with_the_next_call(data, state, settings, learnt):
    withdraw(settings, ["2"])
    arrive(data, 75, 80)
    night(data, state)
    assert len(learnt) == 65
    readmit(settings, ["2"])
    night(data, state)
    assert (stages(state)[4]["arrived"], len(learnt)) == (15, 80)
    with pytest.raises(InputError, match="nothing of 2 is withdrawn"):
        readmit(settings, ["2"])


def test_the_newest_model_that_has_not_seen_them_is_named_and_going_back_to_it_trains_without_them(
    data, state, settings, learnt
):
    arrive(data, 75, 90)
    night(data, state)
    withdraw(settings, ["2"])
    (advice,) = said(state, "advice")
    seen = stages(state)[2]["new"]
    assert advice == (
        f"the model in service, of stage 3, was trained on {seen} of them; --rollback 1 puts the newest into service "
        "that was not"
    )
    assert roll_back(settings, 1) == 1
    night(data, state)  # the same data and settings, but for what is withdrawn
    assert (current(state), stages(state)[4]["parent"], len(learnt)) == (4, 1, 75)
    night(data, state)
    assert max(stages(state)) == 4

    withdraw(settings, ["1"])
    assert said(state, "advice")[-1].endswith(
        "so was each that is kept; --method cold lets the next stage begin from scratch"
    )


def test_a_rollback_before_all_that_was_withdrawn_has_nothing_to_train_on(data, state, settings):
    withdraw(settings, ["2"])
    roll_back(settings, 1)
    night(data, state)
    assert said(state, "waiting")[-1] == "what came later is withdrawn: nothing to train on yet"
    assert max(stages(state)) == 2


def test_what_is_erased_is_in_no_file_of_the_data_and_the_rest_goes_on(data, state, settings, learnt, tmp_path):
    folder, _ = bad_images(data, tmp_path)
    withdraw(settings, [str(folder)], erase=True)
    assert (stages(state)[1]["arrived"], len(arrived(state, 1))) == (55, 55)
    assert not list((state / "data").glob("*erased*"))
    with StateFolder(state).opened() as index:
        assert not check(StateFolder(state), index)[1]
    shutil.copy(state / "index-copy.sqlite", tmp_path / "copy")
    night(data, state)  # they lie there still
    assert max(stages(state)) == 2
    arrive(data, 75, 90)
    night(data, state)
    assert (current(state), len(learnt)) == (3, 85)

    shutil.copy(tmp_path / "copy", state / "index.sqlite")  # the copy knows what is left
    night(data, state)
    assert current(state) == 3
    readmit(settings, [str(folder)])
    night(data, state)
    assert (stages(state)[4]["arrived"], len(learnt)) == (5, 90)


def test_a_whole_stage_may_be_erased_and_a_damaged_model_of_a_later_one_made_anew(data, state, settings, learnt):
    withdraw(settings, ["1"], erase=True)
    assert len(arrived(state, 1)) == 0
    (state / "models" / "0002" / "model.json").write_text("{}")
    arrive(data, 75, 90)
    night(data, state)
    assert said(state, "repaired")
    assert (current(state), len(learnt)) == (3, 30)


def test_where_neither_a_model_nor_the_data_to_make_it_anew_is_left_the_call_says_so(data, state, settings):
    withdraw(settings, ["1"], erase=True)
    for stage in ("0001", "0002"):
        (state / "models" / stage / "model.json").write_text("{}")
    (state / "stages" / "0002" / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(WorkFailedError, match="no promoted model is whole any more"):
        night(data, state)


def test_a_file_that_is_withdrawn_corrects_no_label(data, state, settings):
    (image, *_) = sorted((data / "3").iterdir())
    (data / "8" / "copy.png").write_bytes(image.read_bytes())
    arrive(data, 75, 90)
    night(data, state)
    with StateFolder(state).opened() as index:
        eight = index.files()["8/copy.png"].digests
    withdraw(settings, ["3"])  # the copy as an 8, among others
    (data / "3" / image.name).unlink()
    night(data, state)
    assert eight in {row["digest"] for row in rows(state, "SELECT digest FROM refused")}
    assert said(state, "gone") == [f"1 example no longer in {data}; training goes on with them"]


def test_a_stage_that_waits_for_its_training_is_rejected_and_its_data_is_new_again(data, state, settings, monkeypatch):
    arrive(data, 75, 90)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Attempts, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(data, state)
    withdraw(settings, ["2"])
    assert stages(state)[3]["reason"] == "examples were withdrawn before it was trained"
    night(data, state)
    assert (current(state), stages(state)[4]["seen"] + stages(state)[4]["held_out"]) == (4, 75)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("9", "nothing of stage 9 is there; data came with stages 1, 2"),
        ("nowhere", "nowhere"),
        ("others", "others: 1 image, none of which has arrived"),
        ("damaged", "damaged/0.png"),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_changes(data, state, settings, tmp_path, monkeypatch, what, words):
    monkeypatch.chdir(tmp_path)
    arrive("others", 200, 201)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0.png").write_bytes(b"no image")
    before = content(state)
    with pytest.raises(InputError, match=words):
        withdraw(settings, ["1", what], erase=True)
    assert content(state) == before
    assert not rows(state, "SELECT * FROM withdrawn")


def test_something_must_be_left(state, settings, tmp_path):
    with pytest.raises(InputError, match="nothing to train on; begin with another --state"):
        withdraw(settings, ["1", "2"])
    with pytest.raises(InputError, match="holds no state"):
        withdraw(NightSettings.of({"state": str(tmp_path / "none")}), ["1"])


def test_examples_of_shards_are_withdrawn_by_a_shard(tmp_path, learnt):
    data, state = tmp_path / "shards", tmp_path / "state"
    shard(data / "1.npz", 0, 60)
    night(data, state)
    shard(tmp_path / "bad.npz", 10, 20)
    withdraw(NightSettings.of({"state": str(state)}), [str(tmp_path / "bad.npz")])
    shard(data / "2.npz", 60, 70)
    night(data, state)
    assert (current(state), len(learnt)) == (2, 60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_kill_at_any_boundary_while_something_is_erased_loses_nothing(data, state, settings, tmp_path):
    before, (folder, _) = tmp_path / "before", bad_images(data, tmp_path, 30)  # of both stages
    shutil.copytree(state, before, symlinks=True)
    work = lambda: withdraw(settings, [str(folder)], erase=True)  # noqa: E731
    names = boundaries_of(work, state, tmp_path / "names")
    erased = content(state)
    assert sum("transaction" in name for name in names) == 6  # one on opening, one that changes all

    def killed(at):
        watched = Boundaries(state, at)
        watched.watch()
        work()

    for at in range(1, len(names) + 1):
        restore(before, state)
        assert in_a_child(lambda at=at: killed(at)) == 9
        with StateFolder(state).locked():
            pass  # any call
        with StateFolder(state).opened() as index:
            assert not check(StateFolder(state), index)[1], names[at - 1]
        work()
        assert content(state) == erased, names[at - 1]
