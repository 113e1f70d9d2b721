"""What a night finds in its data folder: what is new by content, what has changed, and what is left out."""

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nights import DIGITS, arrive, current, night, rows, said, shard, stages
from warmstart.errors import InputError, WorkFailedError
from warmstart.retraining import snapshots


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def arrived(state, stage):
    """The snapshot of a stage."""
    return snapshots.read(state / "data" / f"{stage:04}.safetensors", stages(state)[stage]["data_sha256"])


def quarantined(state):
    return {row["path"]: row["reason"] for row in rows(state, "SELECT path, reason FROM quarantine")}


def test_only_what_is_new_arrives_and_nothing_new_is_said(data, state):
    night(data, state)
    night(data, state)
    assert list(stages(state)) == [1]

    arrive(data, 60, 75)
    night(data, state)

    assert [row["arrived"] for row in stages(state).values()] == [60, 15]
    assert stages(state)[2]["parent"] == 1
    assert current(state) == 2
    expected = {snapshots.digest(DIGITS.train_images[i], str(int(DIGITS.train_labels[i]))) for i in range(60, 75)}
    assert set(arrived(state, 2).known()) == expected


def test_a_renamed_or_touched_file_is_nothing_new_and_a_copy_is(data, state):
    night(data, state)
    files = sorted(data.rglob("*.png"))
    files[0].rename(files[0].with_name("renamed.png"))
    files[1].touch()
    night(data, state)
    assert list(stages(state)) == [1]

    for number in range(8):
        for file in files[2:4]:
            shutil.copy(file, file.with_name(f"copy {number} of {file.name}"))
    night(data, state)
    assert stages(state)[2]["arrived"] == 16


def test_an_image_that_moves_to_another_class_is_another_example(data, state):
    night(data, state)
    moved = next((data / "3").glob("*.png"))
    moved.rename(data / "8" / moved.name)
    for at in range(60, 66):
        arrive(data, at, at + 1)
    night(data, state)

    assert stages(state)[2]["arrived"] == 7
    assert said(state, "withdrawn") == ["1 example under another class now; training goes on with that one alone"]
    assert not said(state, "gone")


def test_what_vanishes_stays_trained_on_and_does_not_arrive_again(data, state, tmp_path):
    night(data, state)
    shutil.move(data, tmp_path / "away")
    data.mkdir()
    night(data, state)
    shutil.rmtree(data)
    shutil.move(tmp_path / "away", data)
    arrive(data, 60, 75)
    night(data, state)

    assert [row["arrived"] for row in stages(state).values()] == [60, 15]
    assert stages(state)[2]["seen"] + stages(state)[2]["held_out"] == 75


def test_months_arrive_in_their_order(state, tmp_path):
    arrive(tmp_path / "data", 30, 60, where="2026-02")
    arrive(tmp_path / "data", 0, 30, where="2026-01")
    night(tmp_path / "data", state)
    first = {snapshots.digest(DIGITS.train_images[i], str(int(DIGITS.train_labels[i]))) for i in range(30)}
    assert set(arrived(state, 1).known()[:30]) == first


def test_a_changed_shard_is_said_to_be_changed(state, tmp_path):
    data = tmp_path / "data"
    shard(data / "a.npz", 0, 60)
    night(data, state)
    shard(data / "a.npz", 10, 75)
    night(data, state)

    assert said(state, "changed") == ["a.npz has changed: 15 examples new, 10 gone"]
    assert stages(state)[2]["arrived"] == 15


def test_a_list_of_paths_and_labels_arrives_row_by_row_and_a_corrected_label_too(state, tmp_path):
    data = tmp_path / "data"
    arrive(data / "images", 0, 70)
    names = sorted((data / "images").rglob("*.png"))
    lines = [f"{name.relative_to(data)},{name.parent.name}" for name in names]

    def write(count):
        (data / "labels.csv").write_text("\n".join(["path,label", *lines[:count]]) + "\n")

    write(60)
    night(data / "labels.csv", state)
    lines[0] = lines[0].rpartition(",")[0] + ",9"
    write(70)
    night(data / "labels.csv", state)
    assert [row["arrived"] for row in stages(state).values()] == [60, 11]


def test_the_held_out_fifth_is_the_same_for_ever_and_no_copy_of_it_is_trained_on(data, state):
    for at in range(0, 60, 3):
        arrive(data / ".." / "data", at, at + 1, where="")
    night(data, state)
    first = arrived(state, 1)
    for file in sorted(data.rglob("*.png"))[:20]:
        shutil.copy(file, file.with_name("copy" + file.name))
    arrive(data, 60, 100)
    night(data, state)
    second = arrived(state, 2)

    held = {one for part in (first, second) for one in part.at(part.held_out).known()}
    trained = {one for part in (first, second) for one in part.at(~part.held_out).known()}
    assert not held & trained
    assert 5 < len(held) < 35
    assert stages(state)[2]["held_out"] == sum(int(part.held_out.sum()) for part in (first, second))


def test_a_test_set_of_ones_own_is_not_trained_on(data, state, tmp_path):
    test = tmp_path / "test"
    arrive(test, 50, 80)
    night(data, state, test=str(test))
    assert (stages(state)[1]["seen"], stages(state)[1]["held_out"]) == (50, 30)

    arrive(test, 0, 5)  # trained on already: not tested
    arrive(data, 80, 90)
    night(data, state, test=str(test))
    assert (stages(state)[2]["seen"], stages(state)[2]["held_out"]) == (60, 30)

    with pytest.raises(InputError, match="test is a fifth now and was --test at the first stage"):
        night(data, state)


def test_bad_images_are_left_out_with_their_reasons_and_arrive_when_they_are_corrected(data, state):
    night(data, state)
    arrive(data, 60, 75)
    good = (data / "1").glob("*.png").__next__()
    (data / "1" / "text.png").write_text("no image")
    (data / "1" / "cut.png").write_bytes(good.read_bytes()[:40])
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "1" / "large.png")
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8)).save(data / "1" / "red.png")
    (data / "new class without images").mkdir()
    night(data, state, max_bad=0.5)

    assert stages(state)[2]["arrived"] == 15
    reasons = quarantined(state)
    assert set(reasons) == {"1/text.png", "1/cut.png", "1/large.png", "1/red.png"}
    assert "not an image" in reasons["1/text.png"]
    assert reasons["1/large.png"].startswith("9x9 pixels (height x width) among images of 8x8")
    assert "in colour among grey images" in reasons["1/red.png"]

    night(data, state, max_bad=0.0)  # they are known, and not read again
    assert list(stages(state)) == [1, 2]
    arrive(data, 75, 90)
    shutil.copy(sorted((data / "2").glob("*.png"))[-1], data / "1" / "text.png")
    night(data, state)
    assert stages(state)[3]["arrived"] == 16


def test_bad_shards_are_left_out_with_their_reasons(state, tmp_path):
    data = tmp_path / "data"
    shard(data / "a.npz", 0, 60)
    night(data, state)
    shard(data / "b.npz", 60, 75)
    (data / "cut.npz").write_bytes((data / "a.npz").read_bytes()[:100])
    np.savez(data / "columns.npz", pixels=np.zeros((5, 8, 8)))
    shard(data / "nan.npz", 0, 5, images=np.full((5, 8, 8), np.nan))
    shard(data / "shape.npz", 0, 5, images=np.zeros((5, 9, 9), np.uint8))
    shard(data / "floats.npz", 0, 5, labels=np.zeros(5))
    shard(data / "empty.npz", 0, 0)
    parquet(data / "names.parquet", range(75, 80), label=str.upper)
    night(data, state, max_bad=0.5)

    assert stages(state)[2]["arrived"] == 15
    reasons = quarantined(state)
    assert {name.partition(".")[0] for name in reasons} == {
        *("cut", "columns", "nan", "shape", "floats", "empty", "names")
    }
    assert "NaN" in reasons["nan.npz"]
    assert "there is no x_train" in reasons["columns.npz"]
    assert "labels must be integers" in reasons["floats.npz"]
    assert "its labels are names, those of the others numbers" in reasons["names.parquet"]
    assert str(tmp_path) not in "".join(reasons.values())


def parquet(file, places, label=str):
    import io

    import pyarrow as pa
    from pyarrow import parquet as pq

    def encoded(image):
        stream = io.BytesIO()
        Image.fromarray(image.numpy()).save(stream, "PNG")
        return stream.getvalue()

    images = [{"bytes": encoded(DIGITS.train_images[i, 0]), "path": None} for i in places]
    images[0]["bytes"] = b"no image"
    names = [label(f"d{int(DIGITS.train_labels[i])}") for i in places]
    pq.write_table(pa.table({"image": images, "label": names}), file)


def test_rows_of_a_parquet_shard_that_cannot_be_read_are_named(state, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    parquet(data / "a.parquet", range(60))
    night(data, state)
    assert stages(state)[1]["arrived"] == 59
    assert list(quarantined(state)) == ["a.parquet: row 0 of train"]
    assert [row["name"] for row in rows(state, "SELECT name FROM classes ORDER BY number")] == [
        f"d{i}" for i in range(10)
    ]


def test_names_that_are_no_utf8_arrive_once(data, state):
    for name in (b"4/\xff\xfe.png", b"\xff class/1.png"):
        file = os.fsencode(data) + b"/" + name
        os.makedirs(os.path.dirname(file), exist_ok=True)
        shutil.copy(os.fsencode(next((data / "4").glob("0*.png"))), file)
    night(data, state)
    night(data, state)
    assert [row["arrived"] for row in stages(state).values()] == [62]


def test_an_archive_is_a_shard(state, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name, begin, end in (("a", 0, 60), ("b", 60, 75)):
        arrive(tmp_path / name, begin, end)
        (tmp_path / name / "1" / "bad.png").write_text("no image")
        shutil.make_archive(str(data / name), "zip", tmp_path / name)
        night(data, state, max_bad=0.1)
    assert [row["arrived"] for row in stages(state).values()] == [60, 15]
    assert quarantined(state)["b.zip: 1/bad.png"].startswith("not an image of a known format")


def test_too_much_that_cannot_be_read_stops_the_night_and_changes_nothing(data, state):
    night(data, state)
    arrive(data, 60, 75)
    for name in ("x", "y"):
        (data / "1" / f"{name}.png").write_text("no image")
    with pytest.raises(InputError, match=r"2 of 17 new examples cannot be read, more than --max-bad 1.00% allows"):
        night(data, state)
    assert list(stages(state)) == [1]
    night(data, state, max_bad="15%")
    assert stages(state)[2]["arrived"] == 15


def test_one_class_or_one_example_work_or_are_refused_in_one_line(data, state, tmp_path):
    arrive(tmp_path / "one class", 0, 1)
    with pytest.raises(InputError, match="the first stage needs two classes"):
        night(tmp_path / "one class", tmp_path / "other")
    with pytest.raises(InputError, match=r"no (such file|images)"):
        night(tmp_path / "nothing", tmp_path / "other")

    night(data, state)
    for at in range(60, 90):  # one example a night; a fifth of them is held out, and waits for one to train on
        arrive(data, at, at + 1)
        if at < 64 or at == 89:
            night(data, state)
    seen = stages(state)[max(stages(state))]
    assert seen["seen"] + seen["held_out"] == 90
    zeros = [i for i in range(90, 200) if DIGITS.train_labels[i] == 0]
    for at in zeros:
        arrive(data, at, at + 1)
    night(data, state)
    assert stages(state)[max(stages(state))]["new"] > 0


def test_new_classes_let_the_head_grow_and_those_that_vanish_are_kept(state, tmp_path):
    data = tmp_path / "data"
    places = [i for i in range(200) if DIGITS.train_labels[i] < 4]
    for at in places:
        arrive(data, at, at + 1)
    night(data, state)
    shutil.rmtree(data / "2")
    arrive(data, 200, 240)
    night(data, state)

    classes = [row["name"] for row in rows(state, "SELECT name FROM classes ORDER BY number")]
    assert classes == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert said(state, "classes") == ["new classes: 4, 5, 6, 7, 8, 9; the head grows"]
    card = json.loads((state / "current" / "model.json").read_text())
    assert card["classes"] == classes


def test_what_the_first_stage_has_fixed_is_refused_by_its_key(data, state):
    night(data, state)
    arrive(data, 60, 75)
    for key, value in (("model", "mlp"), ("image_size", 16)):
        with pytest.raises(InputError, match=f"{key} is .* now and was .* at the first stage, which fixed it"):
            night(data, state, **{key: value})
    night(data, state)
    assert current(state) == 2


def test_data_of_a_rejected_stage_counts_as_new_again_with_what_comes_next(data, state):
    night(data, state)
    arrive(data, 60, 75)
    with pytest.raises(WorkFailedError, match=r"stage 2 is rejected: .*; the model of stage 1 stays in service"):
        night(data, state, promote="margin", lr=30.0)
    assert current(state) == 1
    night(data, state, promote="margin", lr=30.0)  # the same again would end in the same way
    assert list(stages(state)) == [1, 2]

    arrive(data, 75, 90)
    night(data, state)
    last = stages(state)[3]
    assert (last["parent"], last["arrived"], last["seen"] + last["held_out"]) == (1, 15, 90)
    assert last["new"] == last["seen"] - stages(state)[1]["seen"]
    assert Path(state / "models" / "0002").is_dir()  # the rejected candidate is kept


def test_the_same_is_not_tried_again_because_there_are_other_threads(data, state):
    night(data, state)
    arrive(data, 60, 75)
    for threads in (1, 2):
        with pytest.raises(WorkFailedError) if threads == 1 else nullcontext():
            night(data, state, promote="margin", lr=30.0, threads=threads)
    assert list(stages(state)) == [1, 2]


class Spread(torch.nn.Module):
    """A network in which no tensor has a row for each class."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.hidden = classes, torch.nn.Linear(64, 2 * classes)

    def forward(self, images):
        return self.hidden(images.flatten(1)).view(len(images), 2, self.classes).sum(1)


def spread(num_classes, in_channels, image_size):
    return Spread(num_classes)


def test_a_network_without_a_row_for_each_class_is_refused_in_one_line_when_a_class_comes(state, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shard(data / "a.npz", 0, 60)
    model = f"{__name__}:spread"
    night(data, state, model=model, method="warm")
    shard(data / "b.npz", 60, 75)
    night(data, state, model=model, method="warm")
    shard(data / "c.npz", 75, 90, labels=[10] * 15)
    with pytest.raises(InputError, match=r"hidden.weight is \(20, 64\) with 10 classes and \(22, 64\) now"):
        night(data, state, model=model, method="warm")
    assert list(stages(state)) == [1, 2]
    assert not (state / "data" / "0003.safetensors").exists()


def test_a_method_that_refuses_the_network_is_said_before_anything_is_written(data, state):
    night(data, state, model="small-cnn[norm=none]")
    arrive(data, 60, 75)
    with pytest.raises(InputError, match="normalize-and-project"):
        night(data, state, model="small-cnn[norm=none]", method="normalize-and-project[nothing=1]")
    assert list(stages(state)) == [1]


def test_what_is_not_read_at_all_is_said(data, state):
    (data / "3" / "photo.heic").write_bytes(b"of a telephone")
    arrive(data, 100, 101)
    (image,) = data.glob("*/0100.png")
    image.rename(data / "loose.png")
    night(data, state)
    heic, loose = said(state, "not read")
    assert "1 file is not read (.heic), such as 3/photo.heic; pip install pillow-heif or convert" in heic
    assert loose.endswith("1 image in no class folder, such as loose.png: not used")
