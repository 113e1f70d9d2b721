"""SVHN's cropped digits as they are downloaded."""

import re
from pathlib import Path

import numpy as np
import pytest
from made_originals import pixels, write_svhn
from scipy.io import savemat

from made_images import class_tree, same, write_folder
from warmstart.data.load import load
from warmstart.errors import InputError


@pytest.mark.parametrize("compressed", [True, False])
def test_images_and_labels(tmp_path: Path, compressed: bool) -> None:
    data = load(write_svhn(tmp_path / "svhn", compressed=compressed))
    assert (data.name, data.classes) == ("svhn", tuple("0123456789"))
    assert np.array_equal(data.train_images.numpy(), pixels(20, 1))
    assert np.array_equal(data.test_images.numpy(), pixels(20, 6))
    assert data.train_labels.tolist() == data.test_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2


def test_either_file_stands_for_both_and_extra_is_left_alone(tmp_path: Path) -> None:
    folder = write_svhn(tmp_path / "svhn")
    (folder / "extra_32x32.mat").write_bytes(b"not read")
    first = load(folder)
    assert all(same(first, load(folder / f"{part}_32x32.mat")) for part in ("train", "test"))
    assert load(folder).name == load(folder / "train_32x32.mat").name == "svhn"
    assert load(folder, image_size=8).train_images.shape == (20, 3, 8, 8)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part_is_named(tmp_path: Path, part: str) -> None:
    (write_svhn(tmp_path) / f"{part}_32x32.mat").unlink()
    missing = re.escape(str(tmp_path / f"{part}_32x32.mat"))
    with pytest.raises(InputError, match=f"^{missing}: no such file, and SVHN needs train_.*and"):
        load(tmp_path)


IMAGES = pixels(4, 0).transpose(2, 3, 1, 0)
LABELS = np.array([[1], [2], [3], [10]], np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": LABELS}, "there is no array X; X must hold the images and y the labels"),
        ({"X": IMAGES}, "there is no array y"),
        ({"X": IMAGES.astype(float), "y": LABELS}, r"X is float64 \(32, 32, 3, 4\), not uint8 \(32, 32, 3, N\)"),
        ({"X": pixels(4, 0), "y": LABELS}, r"X is uint8 \(4, 3, 32, 32\), not uint8"),
        ({"X": IMAGES, "y": LABELS[:3]}, r"y is uint8 \(3, 1\), not one integer for each of the 4 images"),
        ({"X": IMAGES, "y": LABELS / 2}, r"y is float64 \(4, 1\), not one integer"),
        ({"X": IMAGES, "y": LABELS + 1}, "the training label '11' is none of the 10 classes"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    savemat(write_svhn(tmp_path) / "train_32x32.mat", arrays)
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}.*: {message}"):
        load(tmp_path)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_file_gives_one_line(tmp_path: Path, compressed: bool) -> None:
    path = write_svhn(tmp_path, compressed=compressed) / "test_32x32.mat"
    content = path.read_bytes()
    for kept in (0, 3, 100, 130, 140, 1000, len(content) // 2, len(content) - 8):
        path.write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"^[^\n]*test_32x32.mat: [^\n]*; download it again$"):
            load(tmp_path)


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    path = write_svhn(tmp_path) / "train_32x32.mat"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train_32x32.mat: cannot be read \(.*\); it is truncated or damaged"):
        load(tmp_path)


def test_files_of_version_7_3_are_named(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n"
    (write_svhn(tmp_path) / "train_32x32.mat").write_bytes(header.ljust(600, b"\x00"))
    with pytest.raises(InputError, match=r"train_32x32.mat: in MATLAB's format 7.3 \(HDF5\), which is not read"):
        load(tmp_path)


def test_photos_beside_it_are_not_guessed_between(tmp_path: Path) -> None:
    write_folder(write_svhn(tmp_path), class_tree({"cat": 2, "dog": 2}))
    with pytest.raises(InputError, match=r"more than one data set in it \(train_32x32.mat, cat/0.png\); give the path"):
        load(tmp_path)
    assert load(tmp_path / "train_32x32.mat").num_classes == 10
