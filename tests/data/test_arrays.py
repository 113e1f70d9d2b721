"""npz files and the digits."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from made_images import same
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.data.train_and_test import in_parts
from warmstart.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 5, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2


def npz(path: Path, **arrays: Any) -> ImageData:
    np.savez_compressed(path / "made.npz", **arrays)
    return load(path / "made.npz")


def test_digits_are_scikit_learn_s_bit_for_bit() -> None:
    data, digits = load("digits"), load_digits()
    grey = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    names = [str(name) for name in digits.target_names]
    assert same(data, in_parts("digits", grey, torch.from_numpy(digits.target).long(), None, None, names))
    assert (data.name, data.train_images.shape[1:], data.classes) == ("digits", (1, 8, 8), tuple("0123456789"))
    assert (len(data.train_labels), data.has_test_part) == (1797, False)
    assert load("digits", image_size=16).image_size == 16


def test_reading_digits_imports_neither_scikit_learn_nor_what_it_needs() -> None:
    read = "import sys; from warmstart.data.load import load; load('digits'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert {"sklearn", "scipy", "pandas", "pyarrow", "datasets", "matplotlib"}.isdisjoint(loaded)


def test_without_scikit_learn_digits_give_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        InputError, match=r"^digits: scikit-learn, .* is not installed; pip install 'warmstart\[lab\]'$"
    ):
        load("digits")


def test_every_layout_and_type_gives_the_same(tmp_path: Path) -> None:
    first = npz(tmp_path, x_train=COLOUR, y_train=LABELS)
    assert first.name == "made"
    assert first.train_images.shape[1:] == (3, 5, 5)
    variants = [
        COLOUR.transpose(0, 3, 1, 2),
        COLOUR.astype(np.int64),
        COLOUR.astype(np.float32),
        COLOUR.astype(np.float64) / 255,
        (COLOUR / 255).astype(np.float16),
    ]
    for images in variants:
        assert same(npz(tmp_path, images=images, labels=LABELS.astype(np.uint8)[:, None]), first)


def test_grey_layouts_give_the_same(tmp_path: Path) -> None:
    grey = COLOUR[..., 0]
    first, *others = (npz(tmp_path, images=x, labels=LABELS) for x in (grey, grey[..., None], grey[:, None]))
    assert first.train_images.shape[1:] == (1, 5, 5)
    assert all(same(first, other) for other in others)


def test_labels_keep_their_names_and_the_test_part_is_used(tmp_path: Path) -> None:
    data = npz(tmp_path, x_train=COLOUR, y_train=LABELS * 5 - 1, x_test=COLOUR[:2], y_test=np.array([4, -1]))
    assert (data.classes, data.test_labels.tolist(), len(data.train_labels)) == (("-1", "4"), [1, 0], 20)
    assert np.array_equal(data.test_images.permute(0, 2, 3, 1).numpy(), COLOUR[:2])


def test_the_range_is_decided_once_for_both_parts(tmp_path: Path) -> None:
    train, dark = COLOUR.astype(np.float32), np.ones((2, 5, 5, 3), np.float32)
    data = npz(tmp_path, x_train=train, y_train=LABELS, x_test=dark, y_test=LABELS[:2])
    assert data.test_images.max() == 1


def spoilt(value: float) -> np.ndarray:
    images = COLOUR / 255
    images[7, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": spoilt(np.nan), "y_train": LABELS}, "x_train holds NaN; images must be"),
        ({"x_train": spoilt(np.inf), "y_train": LABELS}, "x_train holds values from 0.* to inf"),
        ({"x_train": spoilt(-0.5), "y_train": LABELS}, "x_train holds values from -0.5 to 1"),
        ({"images": COLOUR.astype(int) + 1, "labels": LABELS}, "images holds values from 1 to 256"),
        ({"x_train": COLOUR}, "there is no y_train, only x_train; name the arrays x_train and y_train"),
        ({"pixels": COLOUR}, "there is no x_train"),
        ({"x_train": COLOUR, "y_train": LABELS, "x_test": COLOUR}, "a test part needs both x_test and y_test"),
        ({"x_train": COLOUR, "y_train": LABELS[:3]}, "y_train has 3 labels for 20 images"),
        ({"x_train": COLOUR, "y_train": LABELS / 2}, "y_train is float64 .*; labels must be integers"),
        ({"x_train": COLOUR.reshape(20, 75), "y_train": LABELS}, r"x_train has the shape \(20, 75\)"),
        ({"x_train": COLOUR.reshape(20, 5, 3, 5), "y_train": LABELS}, r"x_train has the shape \(20, 5, 3, 5\)"),
        ({"x_train": COLOUR[:0], "y_train": LABELS[:0]}, r"x_train has the shape \(0, 5, 5, 3\)"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"made.npz?: .*{message}|^made: .*{message}"):
        npz(tmp_path, **arrays)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('unpickled')",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x_train holds pickled objects, which are not read"):
        npz(tmp_path, x_train=np.array([Bomb()], dtype=object), y_train=LABELS)


@pytest.mark.parametrize("kept", [0, 10, 300, 1000])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "made.npz"
    npz(tmp_path, x_train=COLOUR, y_train=LABELS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"made.npz: not an .npz file, or a truncated one"):
        load(path)
    np.save(tmp_path / "made.npy", COLOUR)
    (tmp_path / "made.npy").replace(path)
    with pytest.raises(InputError, match=r"made.npz: not an .npz file"):
        load(path)


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    npz(tmp_path, x_train=COLOUR, y_train=LABELS)
    content = bytearray((tmp_path / "made.npz").read_bytes())
    content[400] ^= 0xFF
    (tmp_path / "made.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"made.npz.*cannot be read"):
        load(tmp_path / "made.npz")
