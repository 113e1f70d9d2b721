"""Images by class in every layout, from a folder or an archive alike."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from made_images import Tree, class_tree, encode, noise, same, tiny_imagenet_tree, write_folder, write_tar, write_zip
from warmstart.data.load import load
from warmstart.errors import InputError

WRITERS = {"d": write_folder, "d.zip": write_zip, "d.tar": write_tar, "d.tar.gz": write_tar}


def test_class_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path / "pets", class_tree({"dog": 10, "cat": 5})))
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert data.train_labels.bincount().tolist() == [5, 10]
    dogs = {noise(6, i).tobytes() for i in range(10)}
    for image, label in zip(data.train_images, data.train_labels, strict=True):
        assert (image.permute(1, 2, 0).numpy().tobytes() in dogs) == (label == 1)


@pytest.mark.parametrize("test_name", ["test", "val", "Validation"])
def test_parts_are_found_by_their_names(tmp_path: Path, test_name: str) -> None:
    tree = class_tree({"cat": 3, "dog": 3}, "train/") | class_tree({"dog": 2}, f"{test_name}/")
    data = load(write_folder(tmp_path, tree))
    assert (len(data.train_labels), data.test_labels.tolist()) == (6, [1, 1])
    assert np.array_equal(data.test_images[1].permute(1, 2, 0).numpy(), np.asarray(noise(6, 1)))


def test_an_unlabelled_test_part_gives_way_to_the_validation_part(tmp_path: Path) -> None:
    tree = class_tree({"cat": 3, "dog": 3}, "train/") | class_tree({"cat": 1}, "val/")
    tree["test/7.png"] = encode(noise(6, 7))
    assert len(load(write_folder(tmp_path, tree)).test_labels) == 1


def test_a_training_part_may_be_alone(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, class_tree({"cat": 5, "dog": 5}, "train/")))
    assert (len(data.train_labels), data.has_test_part) == (10, False)


def test_a_class_of_the_test_part_alone_is_a_class(tmp_path: Path) -> None:
    tree = class_tree({"cat": 3, "gnu": 2}, "train/") | class_tree({"cat": 1, "emu": 1}, "test/")
    data = load(write_folder(tmp_path, tree))
    assert (data.classes, data.test_labels.tolist()) == (("cat", "gnu", "emu"), [0, 2])


def test_the_given_order_is_that_of_file_names_with_numbers_by_size(tmp_path: Path) -> None:
    names = {"cat/img10.png": 10, "cat/img2.png": 2, "dog/img9.png": 9, "dog/img2.png": 3}
    data = load(write_folder(tmp_path, {name: encode(noise(6, seed)) for name, seed in names.items()}), order="given")
    order = sorted(range(4), key=data.arrived.__getitem__)
    found = [data.train_images[place].permute(1, 2, 0).numpy().tobytes() for place in order]
    assert found == [np.asarray(noise(6, seed)).tobytes() for seed in (2, 3, 9, 10)]


@pytest.mark.parametrize(
    "tree",
    [class_tree({"cat": 5, "dog": 6}), class_tree({"cat": 5, "dog": 6}, "deep/wrapped/"), tiny_imagenet_tree()],
    ids=["classes", "wrapped", "tiny-imagenet"],
)  # fmt: skip
def test_folders_and_archives_give_the_same(tmp_path: Path, tree: Tree) -> None:
    first, *others = (load(write(tmp_path / name, tree)) for name, write in WRITERS.items())
    assert all(same(first, other) for other in others)
    assert {data.name for data in (first, *others)} == {"d"}


def test_tiny_imagenet_as_it_is_downloaded(tmp_path: Path) -> None:
    data = load(write_zip(tmp_path / "tiny-imagenet-200.zip", tiny_imagenet_tree()))
    assert (data.name, data.classes) == ("tiny-imagenet-200", ("n02", "n01"))
    assert sorted(data.train_labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 1]


def change(**files: bytes | None) -> Tree:
    """Tiny-ImageNet with some files replaced or, with None, removed."""
    tree = tiny_imagenet_tree() | {f"tiny-imagenet-200/{name}": x for name, x in files.items()}
    return {name: content for name, content in tree.items() if content is not None}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (change(**{"wnids.txt": b"n01\n"}), "the class 'n02' is not in wnids.txt"),
        (change(**{"wnids.txt": b"n01\nn02\nn03\n"}), "the class 'n03' is not in the training part"),
        (change(**{"val/images/val_1.JPEG": None}), "val_annotations.txt line 2: val_1.JPEG is not there"),
        (change(**{"val/val_annotations.txt": b"val_0.JPEG\n"}), "val_annotations.txt line 1: no class"),
    ],
)
def test_a_damaged_tiny_imagenet_is_refused(tmp_path: Path, tree: Tree, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write_zip(tmp_path / "t.zip", tree))


def test_what_is_no_image_is_ignored(tmp_path: Path) -> None:
    tree = class_tree({"cat": 5, "dog": 5})
    clutter = {"cat/notes.txt": b"x", "README.md": b"x", "cat/.hidden.png": b"x", "dog/Thumbs.db": b"x"}
    first, second = (load(write_folder(tmp_path / n, t)) for n, t in (("a", tree), ("b", tree | clutter)))
    assert same(first, second)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, class_tree({"cat": 3, "dog": 3}, "train/"))
    (tmp_path / "train" / "emu").mkdir()
    with pytest.raises(InputError, match="the class folder train/emu holds no image"):
        load(tmp_path)
    (tmp_path / "train" / "emu" / "emu.txt").write_text("no image")
    with pytest.raises(InputError, match="train/emu holds no image"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"1.png": encode(noise(6, 0))}, "no images in class folders; arrange them as CLASS/image.png"),
        (class_tree({"cat": 1}, "test/") | class_tree({"cat": 1}, "val/"), "a part 'test' but no part 'train'"),
        (class_tree({"cat": 3}) | {"dog/bad.jpg": b"no image"}, "dog/bad.jpg: not an image of a known format"),
        (class_tree({"cat": 3}) | class_tree({"dog": 3}, size=7), "dog/0.png is 7x7, cat/0.png is 6x6"),
    ],
)
@pytest.mark.parametrize("name", ["d", "d.zip"])
def test_what_cannot_be_a_data_set_is_refused(tmp_path: Path, tree: Tree, message: str, name: str) -> None:
    write: Callable[[Path, Tree], Path] = WRITERS[name]
    tree = dict(sorted(tree.items(), reverse=name.endswith("zip")))  # write_zip reverses: names in order again
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / name, tree))
