"""CIFAR-10 and CIFAR-100 as they are downloaded."""

import pickle
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_originals import CLASSES_10, CLASSES_100, cifar10_tree, cifar100_tree, pickled, pixels

from made_images import Tree, class_tree, same, write_folder, write_tar, write_zip
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.errors import InputError

WRITERS = {"d": write_folder, "d.tar.gz": write_tar, "d.tar": write_tar, "d.zip": write_zip}


def test_cifar10_in_the_order_of_its_batches(tmp_path: Path) -> None:
    data = load(write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_tree()))
    assert (data.name, data.classes) == ("cifar-10-python", tuple(CLASSES_10))
    assert np.array_equal(data.train_images.numpy(), np.concatenate([pixels(10, seed) for seed in range(1, 6)]))
    assert np.array_equal(data.test_images.numpy(), pixels(10, 6))
    assert data.train_labels.tolist() == [*range(10)] * 5
    assert data.test_labels.tolist() == [*range(10)]


def test_cifar100_with_its_fine_labels(tmp_path: Path) -> None:
    data = load(write_tar(tmp_path / "cifar-100-python.tar.gz", cifar100_tree()))
    assert (data.name, data.classes) == ("cifar-100-python", tuple(CLASSES_100))
    assert np.array_equal(data.train_images.numpy(), pixels(20, 1))
    assert np.array_equal(data.test_images.numpy(), pixels(20, 6))
    assert data.train_labels.tolist() == data.test_labels.tolist() == [99 - i for i in range(20)]


@pytest.mark.parametrize("make", [cifar10_tree, cifar100_tree])
def test_the_folder_its_parent_and_archives_give_the_same(tmp_path: Path, make) -> None:
    tree: Tree = make()
    first, *others = (load(write(tmp_path / name, tree)) for name, write in WRITERS.items())
    (inner,) = (tmp_path / "d").iterdir()
    assert all(same(first, other) for other in (*others, load(inner)))
    assert load(inner).name == inner.name
    assert same(first, load(write_folder(tmp_path / "renamed", make(prefix=""))))


def test_images_are_stretched_as_files_are(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, cifar10_tree()), image_size=16)
    assert data.train_images.shape == (50, 3, 16, 16)


def cifar10(path: Path, **files: bytes | None) -> ImageData:
    """CIFAR-10 with some files replaced or, with None, left out."""
    tree = cifar10_tree() | {f"cifar-10-batches-py/{name.replace('__', '.')}": x for name, x in files.items()}
    return load(write_folder(path, {name: content for name, content in tree.items() if content is not None}))


def batch(data: object = None, labels: object = None) -> bytes:
    images = pixels(10, 0).reshape(10, 3072) if data is None else data
    return pickled({"data": images, "labels": [*range(10)] if labels is None else labels})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data_batch_3": None}, "data_batch_3 is missing beside the other files of cifar-10-batches-py; download"),
        ({"test_batch": None}, "test_batch is missing"),
        ({"batches__meta": None}, "batches.meta is missing"),
        ({"batches__meta": pickled({"names": []})}, "batches.meta holds no list of names 'label_names'"),
        ({"data_batch_2": batch()[:-2000]}, r"data_batch_2: cannot be read \(.*\); it is truncated or damaged"),
        ({"data_batch_2": b""}, r"data_batch_2: cannot be read \(.*\); it is truncated or damaged"),
        ({"data_batch_2": pickled({"labels": [1]})}, "data_batch_2 holds no 'data', but labels"),
        ({"data_batch_2": pickled({"data": [1]})}, "data_batch_2 holds no 'labels', but data"),
        ({"data_batch_2": batch([1, 2])}, r"data_batch_2: 'data' is a list, not uint8 \(N, 3072\)"),
        ({"data_batch_2": batch(np.zeros((10, 3000), np.uint8))}, r"'data' is uint8 \(10, 3000\), not uint8"),
        ({"data_batch_2": batch(np.zeros((10, 3072), int))}, r"'data' is int64 \(10, 3072\), not uint8"),
        ({"test_batch": batch(labels=[1, 2])}, "test_batch: 'labels' must be one integer for each of the 10 images"),
        ({"test_batch": batch(labels=["a"] * 10)}, "test_batch: 'labels' must be one integer for each of the 10"),
        ({"test_batch": batch(labels=[[1], [1, 2]] * 5)}, "test_batch: 'labels' must be one integer for each"),
        ({"test_batch": batch(labels=[2**70] * 10)}, "test_batch: 'labels' must be one integer for each"),
        ({"test_batch": batch(labels=[10] * 10)}, "the test label '10' is none of the 10 classes"),
        ({"data_batch_4": batch(labels=[-1] * 10)}, "the training label '-1' is none of the 10 classes"),
        (
            {"data_batch_1": pickle.dumps({"data": Fraction})},
            "asks for 'fractions.Fraction', which no data set of images needs",
        ),
    ],
)
def test_damage_is_named_in_one_line(tmp_path: Path, files: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}: .*{message}") as caught:
        cifar10(tmp_path, **files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_archive_is_named(tmp_path: Path, kept: float) -> None:
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_tree())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=r"^[^\n]*cifar-10-python.tar.gz: cannot be read [^\n]*truncated or damaged"):
        load(path)


def test_two_data_sets_side_by_side_are_not_guessed_between(tmp_path: Path) -> None:
    write_folder(tmp_path, cifar10_tree() | cifar100_tree())
    with pytest.raises(InputError, match=r"more than one data set in it \(cifar-10-batches-py, cifar-100-python\)"):
        load(tmp_path)
    assert load(tmp_path / "cifar-100-python").num_classes == 100
    photos = write_folder(tmp_path / "mixed", cifar10_tree() | class_tree({"cat": 2, "dog": 2}))
    with pytest.raises(InputError, match=r"more than one data set in it \(cifar-10-batches-py, cat/0.png\)"):
        load(photos)


def test_everyday_names_alone_are_no_cifar100(tmp_path: Path) -> None:
    tree = class_tree({"cat": 2, "dog": 2}) | {"train": b"notes", "cat/meta": b"notes"}
    assert load(write_folder(tmp_path, tree)).classes == ("cat", "dog")
