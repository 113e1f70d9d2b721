"""Tiny-ImageNet as it is downloaded: grey images among colour ones, its list of validation labels, and damage."""

from pathlib import Path

import pytest

from made_images import encode, noise, tiny_imagenet_tree, write_folder, write_tar, write_zip
from warmstart.data.images import ImageData
from warmstart.data.load import load
from warmstart.errors import InputError

WRITERS = {"d": write_folder, "tiny-imagenet-200.zip": write_zip, "d.tar": write_tar, "d.tar.gz": write_tar}


@pytest.mark.parametrize("name", WRITERS)
def test_grey_images_become_colour(tmp_path: Path, name: str) -> None:
    grey = {
        f"tiny-imagenet-200/{image}.JPEG": encode(noise(8, seed, "L"), "JPEG")
        for seed, image in enumerate(["train/n01/images/n01_0", "val/images/val_1"])
    }
    data = load(WRITERS[name](tmp_path / name, tiny_imagenet_tree() | grey))
    assert data.train_images.shape == (6, 3, 8, 8)
    assert data.test_images.shape == (2, 3, 8, 8)
    images = [*data.train_images, *data.test_images]
    assert [place for place, image in enumerate(images) if (image == image[:1]).all()] == [0, 7]


def test_validation_labels_come_from_their_list_not_from_the_order_of_files(tmp_path: Path) -> None:
    tree = tiny_imagenet_tree()
    listed = b"val_1.JPEG\tn02\t0\t0\t5\t5\nval_0.JPEG\tn01\t0\t0\t5\t5\n"
    first = load(write_zip(tmp_path / "a.zip", tree))
    other = load(write_zip(tmp_path / "b.zip", tree | {"tiny-imagenet-200/val/val_annotations.txt": listed}))
    assert first.classes == other.classes == ("n02", "n01")

    def labelled(data: ImageData) -> set[tuple[bytes, int]]:
        return {(x.numpy().tobytes(), int(y)) for x, y in zip(data.test_images, data.test_labels, strict=True)}

    assert labelled(other) == {(pixels, 1 - label) for pixels, label in labelled(first)}


@pytest.mark.parametrize("name", ["tiny-imagenet-200.zip", "d.tar", "d.tar.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.2, 0.9])
def test_a_truncated_archive_gives_one_line(tmp_path: Path, name: str, kept: float) -> None:
    path = WRITERS[name](tmp_path / name, tiny_imagenet_tree())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=rf"^[^\n]*{name}[^\n]*truncated or damaged; download or pack it again$"):
        load(path)
