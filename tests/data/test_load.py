"""load: which reader takes what, what is refused, and the real data."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from made_images import class_tree, same, write_folder, write_zip
from warmstart.data.load import load
from warmstart.errors import InputError
from warmstart.streams.image_stream import image_stream
from warmstart.streams.settings import StreamSettings


def test_what_was_loaded_can_be_loaded_again() -> None:
    digits = load("digits")
    assert load(digits) is digits
    assert same(load(digits, image_size=16), load("digits", image_size=16))
    assert same(pickle.loads(pickle.dumps(digits)), digits)


def test_a_folder_called_digits_is_reached_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "digits", class_tree({"cat": 3, "dog": 3}))
    assert load("./digits").classes == load(Path("digits")).classes == ("cat", "dog")
    assert load("digits").num_classes == 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("digts", "^digts: no such file or folder; did you mean 'digits'"),
        ("pest", "^pest: no such file or folder; did you mean 'pets'"),
        ("pets/cta", "^pets/cta: no such file or folder; did you mean 'pets/cat'"),
        ("uoft-cs/cifar10", "on the hub it would be hf:uoft-cs/cifar10; accepted are digits, hf:NAME, a folder"),
        ("nowhere/at/all", "^nowhere/at/all: no such file or folder; accepted are digits"),
        ("empty", "^empty: no images in it; accepted are digits"),
        ("holder", "^holder: no images in it, but pets.zip: give its path; accepted"),
        ("notes.txt", "^notes.txt: not a kind of file that can be read; accepted are"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pets", class_tree({"cat": 3, "dog": 3}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "holder").mkdir()
    write_zip(tmp_path / "holder" / "pets.zip", class_tree({"cat": 1}))
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(InputError, match=message) as caught:
        load(data)
    assert "\n" not in str(caught.value)


def test_options_that_cannot_apply_are_refused() -> None:
    with pytest.raises(InputError, match="image_size is 0; it must be at least 1"):
        load("digits", image_size=0)
    with pytest.raises(InputError, match="--image-column and --label-column are for tables"):
        load("digits", label_column="label")


def test_image_size_makes_different_images_alike(tmp_path: Path) -> None:
    write_folder(tmp_path, class_tree({"cat": 3}) | class_tree({"dog": 3}, size=9, mode="L"))
    data = load(tmp_path, image_size=4)
    assert data.train_images.shape == (6, 3, 4, 4)


def test_the_real_cifar10(shared_data) -> None:
    data = load(shared_data("cifar10"))
    assert data.train_images.shape == (50_000, 3, 32, 32)
    assert data.test_images.shape == (10_000, 3, 32, 32)
    assert data.train_labels.bincount().tolist() == [5000] * 10
    assert data.test_labels.bincount().tolist() == [1000] * 10
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    published = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    assert np.abs(data.channel_mean().numpy() - published[0]).max() < 0.002
    assert np.abs(data.channel_std().numpy() - published[1]).max() < 0.005
    assert image_stream(data, StreamSettings(stages=50, stage_size=1000), seed=0).stages == 50


def test_the_real_tiny_imagenet(shared_data) -> None:
    data = load(shared_data("tiny-imagenet-10/tiny-imagenet-200.tar"))
    assert data.train_images.shape == (2000, 3, 64, 64)
    assert data.test_images.shape == (500, 3, 64, 64)
    assert data.train_labels.bincount().tolist() == [200] * 10
    grey = (data.train_images[:, :1] == data.train_images).flatten(1).all(dim=1)
    assert 0 < grey.sum() < 100
    assert load(shared_data("tiny-imagenet-10/tiny-imagenet-200.tar"), image_size=32).image_size == 32


def test_the_ways_to_fit_that_settings_name_are_those_there_are():
    from warmstart.data import settings
    from warmstart.decoding import wanted

    assert tuple(wanted.FITS) == settings.FITS
