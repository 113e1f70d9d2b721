"""`warmstart predict`: a row a file, whatever is in it, and one line for what is wrong."""

import csv
import io
import signal
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch import nn

import warmstart as ws
from commands import start, wait_until, warmstart
from warmstart.models.registry import model_factory
from warmstart.serving import predicted_files
from warmstart.serving.model_folder import ModelCard, write_model


class Brightest(nn.Module):
    """The class of an image of 4 x 4 pixels is the brightest of its first three."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, images):
        return self.scale * images.flatten(1)[:, :3]


def make(num_classes, in_channels, image_size):
    return Brightest()


CLASSES = ("=left", "middle", "right")
CARD = ModelCard(f"{__name__}:make", CLASSES, channels=1, image_size=4, fit="stretch", mean=(0.0,), std=(1.0,))


def draw(path, label):
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0, label] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with a state and a folder of images, one of which is broken."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "state" / "models" / "0001", Brightest(), CARD)
    (tmp_path / "state" / "current").symlink_to("models/0001")
    for number in range(7):
        draw(tmp_path / "photos" / f"{number}.png", number % 3)
    draw(tmp_path / "photos" / "deeper" / "still" / "7.png", 1)
    draw(tmp_path / "photos" / ".hidden" / "8.png", 1)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    (tmp_path / "photos" / "notes.txt").write_text("no image, and no name of one")
    return tmp_path


LABELS = {f"photos/{number}.png": CLASSES[number % 3] for number in range(7)} | {"photos/deeper/still/7.png": "middle"}


def predict(*arguments):
    return warmstart("predict", "--state", "state", "--device", "cpu", *arguments)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_file_has_a_row_for_each_image_of_a_folder_and_a_reason_where_one_cannot_be_read(place, capsys):
    assert predict("photos", "--out", "out.csv") == 0
    found = rows((place / "out.csv").read_text())
    assert list(found[0]) == ["path", "label", "probability", "error"]
    assert {row["path"]: row["label"].removeprefix("'") for row in found if not row["error"]} == LABELS
    assert {row["probability"] for row in found} == {"0.986703", ""}  # exp 5 / (exp 5 + 2)
    assert [tuple(row.values()) for row in found if row["error"]] == [
        ("photos/broken.png", "", "", "not an image of a known format")
    ]
    said = capsys.readouterr()
    assert said.out == "9 images: out.csv\n"
    assert said.err.startswith("warning: 1 of 9 images could not be read, such as photos/broken.png: not an image of")


def test_without_a_terminal_the_same_goes_to_stdout(place, capsys):
    predict("photos", "--out", "out.csv")
    capsys.readouterr()
    assert predict("photos") == 0
    assert capsys.readouterr().out == (place / "out.csv").read_text()


def test_the_size_of_batches_changes_no_row(place):
    for size in (1, 3, 100):
        assert predict("photos", "--out", f"{size}.csv", "--batch-size", size) == 0
    assert (place / "1.csv").read_text() == (place / "3.csv").read_text() == (place / "100.csv").read_text()


def test_no_more_than_two_batches_are_in_memory(place, monkeypatch):
    held, most, decode = [0], [0], predicted_files.decode_files

    def counting(paths, card):
        held[0] += len(paths)
        most[0] = max(most[0], held[0])
        return decode(paths, card)

    served = ws.load("state", "cpu")
    monkeypatch.setattr(predicted_files, "decode_files", counting)
    batches = predicted_files.predict_files(served, predicted_files.image_files([place / "photos"]), 2)
    for batch in batches:
        assert len(batch.paths) <= 2
        held[0] -= len(batch.paths)
    assert most == [4]  # one is decoded while one is used


def test_the_most_probable_classes_and_all_probabilities_are_columns_if_asked_for(place):
    assert predict("photos/1.png", "--top", 2, "--probabilities", "--out", "out.csv") == 0
    (row,) = rows((place / "out.csv").read_text())
    assert (row["label"], row["label_2"]) == ("middle", "'=left")
    assert (row["probability"], row["probability_2"]) == ("0.986703", "0.006648")
    assert [row[name] for name in ("p_=left", "p_middle", "p_right")] == ["0.006648", "0.986703", "0.006648"]


def test_parquet_holds_the_same_with_its_types(place):
    assert predict("photos", "--out", "out.parquet", "--top", 2) == 0
    assert predict("photos", "--out", "out.csv", "--top", 2) == 0
    table = pyarrow.parquet.read_table(place / "out.parquet")
    assert [str(kind) for kind in table.schema.types] == ["string", "string", "float", "string", "float", "string"]
    for row, written in zip(table.to_pylist(), rows((place / "out.csv").read_text()), strict=True):
        for name, value in row.items():
            shown = "" if value is None else f"{value:.6f}" if isinstance(value, float) else value
            assert written[name].removeprefix("'") == shown


def test_python_says_the_same(place):
    predicted = ws.load("state", "cpu").predict(list(LABELS))
    assert predicted.names == list(LABELS.values())


def test_a_name_is_no_formula_in_a_spreadsheet(place):
    draw(place / "=1+1.png", 0)
    assert predict("=1+1.png", "--out", "out.csv") == 0
    (row,) = rows((place / "out.csv").read_text())
    assert (row["path"], row["label"]) == ("'=1+1.png", "'=left")


def test_a_name_that_is_no_utf8_is_written_as_an_escape(place):
    draw(place / "plain.png", 2).rename(place / "odd\udcff\n.png")
    for out in ("out.csv", "out.parquet"):
        assert predict("odd\udcff\n.png", "--out", out) == 0
    assert rows((place / "out.csv").read_text())[0]["path"] == r"odd\udcff .png"
    assert pyarrow.parquet.read_table(place / "out.parquet")["path"].to_pylist() == [r"odd\udcff\n.png"]


def test_a_terminal_gets_a_line_an_image(place, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert predict("photos/1.png", "photos/broken.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  98.7%  middle  photos/1.png", "not an image of a known format  photos/broken.png"]


def test_nothing_that_could_be_read_is_exit_1_and_the_reasons_are_written(place, capsys):
    assert predict("photos/broken.png", "--out", "out.csv") == 1
    assert "no image could be read of 1, such as photos/broken.png: not an image" in capsys.readouterr().err
    assert len(rows((place / "out.csv").read_text())) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["photo"], "photo: no such file or folder; did you mean 'photos'?"),
        (["empty"], "empty: no images in it; name another folder"),
        (["photos", "empty"], "empty: no images in it"),
        (["photos", "--out", "out.xlsx"], "out.xlsx is no kind of table that is written; let its name end in .csv or"),
        (["photos", "--out", "nowhere/out.csv"], "nowhere is no folder; make it first"),
        (["photos", "--out", "empty.csv"], "empty.csv is a folder"),
        (["photos", "--top", "4"], "top is 4; it must be at least 1 and at most 3, the classes"),
        (["photos", "--top", "0"], "Invalid value for '--top'"),
        (["photos", "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["photos", "--device", "tpu"], "device 'tpu' is not there"),
        (["photos", "--state", "empty"], "empty holds no model; name the --state of `warmstart retrain`"),
    ],
)
def test_what_is_wrong_is_one_line(place, capsys, arguments, said):
    (place / "empty").mkdir()
    (place / "empty.csv").mkdir()
    before = sorted(place.rglob("*"))
    assert predict(*arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_no_model_is_one_line(place, capsys):
    assert warmstart("predict", "photos") == 2
    assert "no model is named; give --state STATE of `warmstart retrain`" in capsys.readouterr().err


def test_an_earlier_table_stays_if_the_work_ends_early(place, monkeypatch):
    (place / "out.csv").write_text("earlier")
    monkeypatch.setattr(predicted_files, "decode_files", lambda paths, card: 1 / 0)
    assert predict("photos", "--out", "out.csv") == 1
    assert (place / "out.csv").read_text() == "earlier"
    assert not list(place.glob(".*"))


@pytest.fixture
def another(place):
    """A model that another process can make."""
    write_model(place / "another", model_factory("small-cnn")(3, 1, 4), replace(CARD, model="small-cnn"))
    return "another"


def test_an_interrupt_leaves_nothing_half_written(place, another):
    photo = (place / "photos" / "1.png").read_bytes()
    for number in range(5000):
        (place / "photos" / f"again-{number}.png").write_bytes(photo)
    process = start("predict", "--state", another, "photos", "--out", "out.csv", "--batch-size", 1, cwd=place)
    wait_until(lambda: any(file.stat().st_size for file in place.glob(".out.csv.*")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said == "warmstart: stopped; the same command begins anew\n"
    assert not list(place.glob("*out.csv*"))


def test_a_pipe_that_ends_early_is_no_error(place, another):
    process = start("predict", "--state", another, "--device", "cpu", "photos", cwd=place)
    process.stdout.close()
    _, said = process.communicate()
    assert "warning: 1 of 9 images" in said
    assert process.returncode == 0
