"""The paper's data sets: each from the hub or from a path in any layout, and nothing else under their names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
from made_originals import CLASSES_10, cifar10_tree, cifar100_tree, pixels, write_svhn
from PIL import Image

from made_images import class_tree, encode, noise, same, write_folder, write_tar, write_zip
from warmstart.data import paper_data
from warmstart.data.paper_data import find_original, load_paper_data, shortfall
from warmstart.data.paper_sets import PAPER_DATA
from warmstart.errors import InputError


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def hub_columns(name: str) -> dict[str, tuple[Any, Callable[[int], Any]]]:
    """The columns that the hub has, each with its feature and the value of row i."""
    paper = PAPER_DATA[name]
    columns: dict[str, tuple[Any, Callable[[int], Any]]] = {
        paper.image_column: (datasets.Image(), lambda i: noise(paper.image_size, i)),
        paper.label_column: (datasets.ClassLabel(num_classes=paper.num_classes), lambda i: i % paper.num_classes),
    }
    if name == "cifar100":
        columns["coarse_label"] = (datasets.ClassLabel(num_classes=20), lambda i: 0)
    return columns


def on_hub(name: str, rows: int) -> datasets.Dataset:
    columns = hub_columns(name)
    values = {column: [value(i) for i in range(rows)] for column, (_, value) in columns.items()}
    return datasets.Dataset.from_dict(values, datasets.Features({c: feature for c, (feature, _) in columns.items()}))


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """A hub with the four data sets in small; returns what it was asked for."""
    asked: list[tuple[str, str | None]] = []

    def load_dataset(repository: str, config: str | None) -> datasets.DatasetDict:
        asked.append((repository, config))
        name = next(name for name, paper in PAPER_DATA.items() if repository in paper.hub)
        test = "valid" if name == "tiny-imagenet" else "test"
        parts = {"train": on_hub(name, 12), test: on_hub(name, 6)}
        return datasets.DatasetDict(parts | ({"extra": on_hub(name, 3)} if name == "svhn" else {}))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    return asked


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("cifar10", ("uoft-cs/cifar10", None)),
        ("cifar100", ("uoft-cs/cifar100", None)),
        ("svhn", ("ufldl-stanford/svhn", "cropped_digits")),
        ("tiny-imagenet", ("zh-plus/tiny-imagenet", None)),
    ],
)
def test_each_from_the_hub(online: list[tuple[str, str | None]], name: str, asked: tuple[str, str | None]) -> None:
    data = load_paper_data(name)
    paper = PAPER_DATA[name]
    assert online == [asked]
    assert (data.name, data.num_classes, data.image_size) == (name, paper.num_classes, paper.image_size)
    assert data.train_labels.tolist() == [i % paper.num_classes for i in range(12)]
    assert data.test_labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(data.train_images[3].permute(1, 2, 0).numpy(), np.asarray(noise(paper.image_size, 3)))


def test_without_the_hub_the_message_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(InputError, match=r"cannot be reached; [^\n]*; or give cifar-10-python.tar.gz with --data$"):
        load_paper_data("cifar10")


def test_every_layout_gives_the_same_cifar10(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_tree())
    folder = write_folder(tmp_path / "root", cifar10_tree() | cifar100_tree())
    write_svhn(folder)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES_10)})
    (tmp_path / "parquet").mkdir()
    images: dict[str, bytes] = {}
    for part, seeds in (("train", range(1, 6)), ("test", [6])):
        pictures = [Image.fromarray(x.transpose(1, 2, 0)) for seed in seeds for x in pixels(10, seed)]
        labels = [i % 10 for i in range(len(pictures))]
        table = datasets.Dataset.from_dict({"img": pictures, "label": labels}, features)
        table.to_parquet(tmp_path / "parquet" / f"{part}-00000-of-00001.parquet")
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            images[f"{part}/{CLASSES_10[label]}/{i}.png"] = encode(picture)
    first = load_paper_data("cifar10", archive)
    assert first.name == "cifar10"
    for path in (folder, folder / "cifar-10-batches-py", tmp_path / "parquet"):
        assert same(load_paper_data("cifar10", path), first)
    by_class = load_paper_data("cifar10", write_folder(tmp_path / "images", images))
    assert (by_class.classes, len(by_class.train_labels)) == (first.classes, 50)


def test_torchvisions_root_holds_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(write_folder(tmp_path, cifar10_tree() | cifar100_tree()))
    write_zip(tmp_path / "tiny-imagenet-200.zip", class_tree({"n01": 5, "n02": 5}, size=64))
    found = {name: find_original(name, tmp_path).name for name in PAPER_DATA}
    assert found == {
        "cifar10": "cifar-10-batches-py",
        "cifar100": "cifar-100-python",
        "svhn": "train_32x32.mat",
        "tiny-imagenet": "tiny-imagenet-200.zip",
    }
    assert load_paper_data("cifar100", tmp_path).num_classes == 100
    assert load_paper_data("svhn", tmp_path).train_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    assert load_paper_data("tiny-imagenet", tmp_path).classes == ("n01", "n02")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_paper_data("cifar10", Path("~")).name == "cifar10"
    assert find_original("svhn", tmp_path / "train_32x32.mat") == tmp_path / "train_32x32.mat"


def test_a_part_of_a_data_set_will_do_and_is_said_to_be_one(tmp_path: Path) -> None:
    tree = class_tree({"cat": 3, "dog": 3}, "train/", size=64) | class_tree({"cat": 2}, "val/", size=64)
    data = load_paper_data("tiny-imagenet", write_folder(tmp_path, tree))
    lacking = "2 of 200 classes, 6 of 100000 training images, 2 of 10000 test images"
    assert shortfall("tiny-imagenet", data) == lacking


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("cifar10", "cifar-100-python", "holds 100 classes, but cifar10 has 10; give cifar10's own data"),
        ("tiny-imagenet", "cifar-10-batches-py", "holds colour images of 32x32 pixels, but tiny-imagenet's are colour"),
        ("svhn", "grey", "holds grey images of 32x32 pixels, but svhn's are colour images of 32x32"),
        ("cifar100", "cifar-10-batches-py", "holds 10 classes, but cifar100 has 100; give cifar100's own data"),
        ("svhn", "cifar-10-batches-py", "holds classes such as 'airplane', but svhn has digits; give svhn's own data"),
        (
            "cifar10",
            "nowhere",
            "nowhere: no such file or folder; accepted are cifar-10-batches-py, cifar-10",
        ),
        ("cifar10", "cifar-10-batches-yp", "no such file or folder; did you mean '.*cifar-10-batches-py'"),
        ("cifar-10", "grey", "'cifar-10' is not a data set of the paper's tables; did you mean 'cifar10'"),
    ],
)
def test_other_data_is_refused(tmp_path: Path, name: str, given: str, message: str) -> None:
    write_folder(tmp_path, cifar10_tree() | cifar100_tree())
    write_folder(tmp_path / "grey", class_tree({"0": 5, "1": 5}, size=32, mode="L"))
    with pytest.raises(InputError, match=message):
        load_paper_data(name, tmp_path / given)


def test_the_whole_is_known_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path, cifar10_tree())
    small = replace(PAPER_DATA["cifar10"], train_examples=50, test_examples=10)
    monkeypatch.setattr(paper_data, "PAPER_DATA", {"cifar10": small})
    assert shortfall("cifar10", load_paper_data("cifar10", folder)) is None
    monkeypatch.setattr(paper_data, "PAPER_DATA", {"cifar10": replace(small, train_examples=49)})
    with pytest.raises(InputError, match="holds 50 training images, but cifar10 has 49; give cifar10's own data"):
        load_paper_data("cifar10", folder)


def test_the_real_part_of_tiny_imagenet(shared_data) -> None:
    data = load_paper_data("tiny-imagenet", shared_data("tiny-imagenet-10/tiny-imagenet-200.tar"))
    lacking = "10 of 200 classes, 2000 of 100000 training images, 500 of 10000 test images"
    assert shortfall("tiny-imagenet", data) == lacking
