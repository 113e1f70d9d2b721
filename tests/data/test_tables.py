"""Parquet files and hub data sets: parts, columns, labels, damage."""

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from pyarrow import parquet

from made_images import encode, noise, same
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.errors import InputError

IMAGES = [{"bytes": encode(noise(5, i)), "path": f"{i}.png"} for i in range(10)]
NAMED = datasets.ClassLabel(names=["cat", "dog"])


def table(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, rows: int | None = None) -> None:
    """Write a parquet file as `datasets` does, with features, or as others do, without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: values[:rows] for name, values in columns.items()}
    if features is None:
        parquet.write_table(pyarrow.table(columns), path)
    else:
        datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(path)


LABELS = [i % 2 for i in range(10)]
PLAIN = {"img": IMAGES, "label": LABELS}
FEATURES = {"img": datasets.Image(), "label": NAMED}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()


def test_a_folder_as_the_hub_has_it(tmp_path: Path) -> None:
    table(tmp_path / "data" / "train-00000-of-00002.parquet", PLAIN, FEATURES)
    table(tmp_path / "data" / "train-00001-of-00002.parquet", PLAIN, FEATURES, rows=4)
    table(tmp_path / "data" / "test-00000-of-00001.parquet", PLAIN, FEATURES, rows=3)
    table(tmp_path / "data" / "extra-00000-of-00001.parquet", PLAIN, FEATURES)
    before = sorted(tmp_path.rglob("*"))
    calls: list[tuple[int, int]] = []
    data = load(tmp_path, progress=lambda *counts: calls.append(counts))
    assert (data.name, data.classes) == (tmp_path.name, ("cat", "dog"))
    assert data.train_labels.tolist() == LABELS + LABELS[:4]
    assert data.test_labels.tolist() == [0, 1, 0]
    expected = np.stack([np.asarray(noise(5, i)) for i in [*range(10), *range(4)]])
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1).numpy(), expected)
    assert np.array_equal(data.test_images.permute(0, 2, 3, 1).numpy(), expected[:3])
    assert calls == [(17, 17)]
    assert sorted(tmp_path.rglob("*")) == before  # no cache beside the user's data


def test_one_file_is_a_training_part(tmp_path: Path) -> None:
    table(tmp_path / "pets.parquet", PLAIN, FEATURES)
    data = load(tmp_path / "pets.parquet")
    assert (data.name, len(data.train_labels), len(data.test_labels)) == ("pets", 10, 0)


def test_files_of_other_tools(tmp_path: Path) -> None:
    contents = [image["bytes"] for image in IMAGES]
    table(tmp_path / "features.parquet", PLAIN, FEATURES)
    table(tmp_path / "structs.parquet", PLAIN)
    table(tmp_path / "bytes.parquet", {"picture": contents, "animal": [["cat", "dog"][i] for i in LABELS]})
    first, structs, plain = (load(tmp_path / f"{n}.parquet") for n in ("features", "structs", "bytes"))
    assert structs.classes == ("0", "1")
    assert same(plain, first)


def test_a_hidden_test_part_gives_way_to_the_validation_part(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", PLAIN, FEATURES)
    table(tmp_path / "test.parquet", {"img": IMAGES, "label": [-1] * 10}, FEATURES)
    table(tmp_path / "validation.parquet", PLAIN, FEATURES, rows=5)
    assert len(load(tmp_path).test_labels) == 5


CIFAR100 = {"img": IMAGES, "fine_label": LABELS, "coarse_label": LABELS[::-1]}
CIFAR100_FEATURES = {"img": datasets.Image(), "fine_label": NAMED, "coarse_label": NAMED}


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    file = tmp_path / "cifar100.parquet"
    table(file, CIFAR100, CIFAR100_FEATURES)
    fine, coarse = load(file), load(file, label_column="coarse_label")
    assert same(fine, load(file, image_column="img", label_column="fine_label"))
    assert not same(fine, coarse)
    table(
        file,
        PLAIN | {"id": [0] * 5 + [1] * 5, "mask": IMAGES},
        FEATURES | {"id": datasets.Value("int64"), "mask": datasets.Image()},
    )
    assert same(load(file), fine)
    assert not same(load(file, image_column="mask", label_column="id"), fine)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"left": IMAGES, "right": IMAGES, "label": LABELS},
            {},
            r"more than one column holds images; name it with --image-column \(columns: left, right, label\)",
        ),
        (
            {"img": IMAGES, "age": LABELS, "size": LABELS},
            {},
            r"more than one column holds labels; name it with --label-column \(columns: img, age, size\)",
        ),
        ({"img": IMAGES, "score": [0.5] * 10}, {}, "no column holds labels; name it with --label-column"),
        ({"text": ["a"] * 10, "label": LABELS}, {}, "no column holds images; name it with --image-column"),
        (PLAIN, {"label_column": "lable"}, "there is no column 'lable'; did you mean 'label'"),
        (PLAIN, {"image_column": "label"}, "the column 'label' holds no images"),
        (PLAIN, {"label_column": "img"}, "the column 'img' holds no labels"),
        ({"img": IMAGES, "label": [*LABELS[:9], None]}, {}, "train has rows without a 'label'"),
        ({"img": [*IMAGES[:9], None], "label": LABELS}, {}, "row 9 of train: there is no image"),
        (
            {"img": [*IMAGES[:9], {"bytes": b"no image", "path": "9.png"}], "label": LABELS},
            {},
            "row 9 of train: not an image of a known format",
        ),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, str], message: str
) -> None:
    table(tmp_path / "t.parquet", columns)
    with pytest.raises(InputError, match=rf"t.parquet: {message}"):
        load(tmp_path / "t.parquet", **options)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    table(tmp_path / "train-0.parquet", PLAIN, FEATURES)
    table(tmp_path / "train-1.parquet", CIFAR100, CIFAR100_FEATURES)
    with pytest.raises(InputError, match=r"train-1.parquet has other columns than .*train-0.parquet"):
        load(tmp_path)
    (tmp_path / "train-1.parquet").write_bytes((tmp_path / "train-0.parquet").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"train-1.parquet: cannot be read \(.*\); replace it"):
        load(tmp_path)


def test_an_empty_training_part_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", PLAIN, FEATURES, rows=0)
    table(tmp_path / "test.parquet", PLAIN, FEATURES)
    with pytest.raises(InputError, match="the part 'train' has no rows"):
        load(tmp_path)


def test_parts_that_label_differently_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", PLAIN, FEATURES)
    table(tmp_path / "test.parquet", PLAIN, FEATURES | {"label": datasets.ClassLabel(names=["dog", "cat"])})
    with pytest.raises(InputError, match="'label' differs in type between train and test"):
        load(tmp_path)


def test_labels_of_plus_and_minus_one_are_classes(tmp_path: Path) -> None:
    table(tmp_path / "t.parquet", {"img": IMAGES, "label": [2 * i - 1 for i in LABELS]})
    assert load(tmp_path / "t.parquet").classes == ("-1", "1")


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", PLAIN, FEATURES)
    table(tmp_path / ".cache" / "b.parquet", PLAIN, FEATURES)
    assert len(load(tmp_path).train_labels) == 10


def test_a_test_part_alone_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "test.parquet", PLAIN, FEATURES)
    with pytest.raises(InputError, match="there is no part 'train'; it has test"):
        load(tmp_path)


class Hub:
    """A hub that has one data set."""

    asked: list[tuple[str, str | None]]

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def load_dataset(self, name: str, config: str | None) -> datasets.DatasetDict:
        self.asked.append((name, config))
        if config is None:
            raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']")
        file = self.folder / "hub.parquet"
        table(file, PLAIN, FEATURES)
        part = datasets.Dataset.from_parquet(str(file), cache_dir=str(self.folder / "cache"))
        return datasets.DatasetDict(train=part, valid=part.select(range(3)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", made.load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    return made


def test_a_hub_data_set(hub: Hub) -> None:
    data: ImageData = load("hf:someone/pets:small")
    assert hub.asked == [("someone/pets", "small")]
    assert (data.name, data.classes) == ("someone/pets:small", ("cat", "dog"))
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == (LABELS, [0, 1, 0])
    expected = np.stack([np.asarray(noise(5, i)) for i in range(10)])
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1).numpy(), expected)


def test_a_hub_data_set_of_several_configurations(hub: Hub) -> None:
    with pytest.raises(InputError, match=r"^hf:someone/pets: .*configs: \['a', 'b'\]; write hf:NAME:CONFIG$"):
        load("hf:someone/pets")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route"), r"^hf:x/y: the hub \(http.*\) cannot be reached; go online, or set [^\n]*$"),
        (RepositoryNotFoundError.__new__(RepositoryNotFoundError), "^hf:x/y: no such data set on the hub"),
    ],
)
def test_a_hub_that_does_not_help_gives_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(InputError, match=message):
        load("hf:x/y")
