"""How the data folder was understood at first holds for ever: a stray file changes no labels and hides no images."""

import shutil
import sqlite3
import zipfile

import numpy as np
import pytest

from nights import arrive, content, current, night, rows, stages
from warmstart.errors import InputError


@pytest.fixture
def state(begun):
    return begun


def predictions(data, state):
    """What `warmstart predict --out` writes beside the images."""
    lines = [f"{file.relative_to(data)},9" for file in sorted(data.rglob("*.png"))]
    (data / "predictions.csv").write_text("\n".join(["path,label", *lines]) + "\n")


def archive(data, state):
    with zipfile.ZipFile(data / "3" / "backup.zip", "w") as packed:
        packed.writestr("notes.txt", "nothing")


def arrays(data, state):
    np.savez(data / "3" / "embeddings.npz", embeddings=np.zeros(3))


def part_for_training(data, state):
    arrive(data, 80, 90, where="train")


def part_for_testing(data, state):
    arrive(data, 80, 90, where="test")


def another_root(data, state):
    for folder in data.iterdir():
        folder.rename(folder.with_name(f"_{folder.name}"))
    (data / "all").mkdir()
    for folder in data.glob("_*"):
        folder.rename(data / "all" / folder.name[1:])


@pytest.mark.parametrize(
    ("stray", "said"),
    [
        (predictions, r"is read as 'list predictions.csv' now and was as 'class folders' before"),
        (archive, r"holds images and shards, such as .*png and 3/backup.zip"),
        (arrays, r"holds images and shards, such as .*png and 3/embeddings.npz"),
        (part_for_training, r"is read as 'class folders in train' now and was as 'class folders' before"),
        (part_for_testing, r"the folder test beside class folders would be a class"),
        (another_root, r"is read as 'class folders in all' now and was as 'class folders' before"),
    ],
)
def test_what_would_be_understood_in_another_way_is_refused_by_its_name(data, state, stray, said):
    before = content(state)
    stray(data, state)
    with pytest.raises(InputError, match=said):
        night(data, state, max_bad=0.5)
    assert content(state) == before


def test_a_state_from_before_takes_the_layout_of_its_next_stage(data, state):
    with sqlite3.connect(state / "index.sqlite") as database:
        database.execute("DELETE FROM facts WHERE name = 'layout'")
    database.close()
    night(data, state)
    assert current(state) == 2
    predictions(data, state)
    with pytest.raises(InputError, match=r"list predictions\.csv"):
        night(data, state)


def test_months_may_follow_a_first_one_and_class_folders(data, state):
    for number, end in enumerate((90, 105), start=1):
        for folder in [one for one in data.iterdir() if one.name.isdigit()]:
            shutil.move(folder, data / "2026-01" / folder.name)
        arrive(data, end - 15, end, where=f"2026-{number:02}")
        night(data, state)
    assert [row["arrived"] for row in stages(state).values()] == [60, 30, 15]


def test_what_a_system_puts_beside_images_is_no_class(data, state):
    arrive(data / "3", 100, 103, where="@eaDir")
    for name in ("@eaDir", "lost+found"):
        shutil.copytree(data / "3", data / name)
    night(data, state)
    assert stages(state)[2]["arrived"] == 15
    assert not {"@eaDir", "lost+found"} & {row["name"] for row in rows(state, "SELECT name FROM classes")}


def test_new_classes_may_be_refused(data, state):
    shutil.copytree(data / "3", data / "thre")
    before = content(state)
    with pytest.raises(InputError, match=r"new class thre \(--new-classes refuse\); correct the labels"):
        night(data, state, new_classes="refuse")
    assert content(state) == before
    shutil.rmtree(data / "thre")
    night(data, state, new_classes="refuse")
    assert current(state) == 2


@pytest.mark.parametrize("left", ["nothing", "class folders", "text"])
def test_where_all_images_are_gone_nothing_is_new_night_after_night(data, state, left):
    for file in data.rglob("*.png"):
        file.unlink()
    if left == "nothing":
        shutil.rmtree(data)
        data.mkdir()
    if left == "text":
        (data / "prices.csv").write_text("class,price\n3,7\n")
    for _ in range(3):
        night(data, state)
    assert list(stages(state)) == [1]


@pytest.mark.parametrize("left", ["", "path,label\n", None])
def test_a_list_that_is_emptied_or_gone_is_to_be_restored(tmp_path, left):
    data, state = tmp_path / "pictures", tmp_path / "state"
    arrive(data, 0, 60)
    labels = data / "labels.csv"
    rows_ = [f"{file.relative_to(data)},{file.parent.name}" for file in sorted(data.rglob("*.png"))]
    labels.write_text("\n".join(["path,label", *rows_]) + "\n")
    night(data, state)
    before = content(state)
    labels.unlink() if left is None else labels.write_text(left)
    with pytest.raises(InputError, match=r"labels\.csv has no rows any more, or is gone; restore it"):
        night(data, state)
    assert content(state) == before
