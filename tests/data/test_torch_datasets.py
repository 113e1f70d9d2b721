"""torch datasets: every kind of image that they give."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from made_images import noise, same
from warmstart.data.load import load
from warmstart.data.torch_datasets import from_dataset
from warmstart.errors import InputError


class Listed(Dataset[Any]):
    def __init__(self, examples: list[Any]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


IMAGES = [noise(5, i) for i in range(10)]
ARRAYS = [np.asarray(image) for image in IMAGES]
TENSORS = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in ARRAYS]
KINDS = {
    "pil": IMAGES,
    "array": ARRAYS,
    "uint8": TENSORS,
    "float": [tensor / 255 for tensor in TENSORS],
    "float array": [array / 255 for array in ARRAYS],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_gives_the_same(kind: str) -> None:
    data = from_dataset(Listed([(image, i % 2) for i, image in enumerate(KINDS[kind])]))
    assert data.train_images.shape == (10, 3, 5, 5)
    assert same(data, from_dataset(Listed([(image, i % 2) for i, image in enumerate(IMAGES)])))
    assert {x.numpy().tobytes() for x in data.train_images} <= {x.numpy().tobytes() for x in TENSORS}


def test_tensor_datasets_with_a_test_part() -> None:
    train = TensorDataset(torch.rand(6, 4, 4), torch.tensor([3, 9, 3, 9, 3, 9]))
    test = TensorDataset(torch.ones(2, 1, 4, 4), torch.tensor([9, 3]))
    data = load((train, test), image_size=8)
    assert (data.train_images.shape, data.test_labels.tolist()) == ((6, 1, 8, 8), [1, 0])
    assert (data.classes, data.name) == (("3", "9"), "tensordataset")
    assert data.test_images.unique().tolist() == [255]
    assert not load((train, None)).has_test_part


def test_class_names_are_taken_from_the_dataset() -> None:
    dataset = Listed([(image, np.int64(i % 2)) for i, image in enumerate(IMAGES)])
    assert from_dataset(dataset).classes == ("0", "1")
    dataset.classes = ["a", "b", "c"]  # type: ignore[attr-defined]  # as torchvision's have it
    assert from_dataset(dataset).classes == ("a", "b", "c")


def test_an_upside_down_photo_is_left_alone_in_the_users_hands() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    image = IMAGES[0].copy()
    image.info["exif"] = exif.tobytes()
    data = from_dataset(Listed([(image, 0), (image, 0), (IMAGES[1], 1), (IMAGES[1], 1)]))
    turned = np.asarray(IMAGES[0])[::-1, ::-1]
    assert np.array_equal(data.train_images[0].permute(1, 2, 0).numpy(), turned)
    assert np.array_equal(np.asarray(image), np.asarray(IMAGES[0]))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ((torch.full((3, 5, 5), torch.nan), 0), "listed training example 1 holds NaN"),
        ((torch.full((3, 5, 5), -1.0), 0), "values from -1 to -1; floats must be in .0, 1.: leave out Normalize"),
        ((torch.zeros(3, 5, 5, dtype=torch.int64), 0), "is int64; an image must be uint8"),
        ((torch.zeros(4, 5, 5), 0), r"has the shape \(4, 5, 5\); it must be \(H, W\) or \(C, H, W\)"),
        ((np.zeros((3, 5, 5)), 0), r"has the shape \(3, 5, 5\); it must be \(H, W\) or \(H, W, C\)"),
        ((torch.zeros(3, 6, 6), 0), "example 1 is 6x6, listed training example 0 is 5x5"),
        ((IMAGES[0], 0.5), "has the label 0.5; labels must be integers or names"),
        ((IMAGES[0], "cat"), "has the label 'cat', others 0; make all integers or all names"),
        (("a.png", 0), "is a str; an image must be"),
        ([IMAGES[0]], "is a list; a dataset must give .image, label. or a mapping of them"),
        ({"image": IMAGES[0]}, "no column holds labels; name it with --label-column .columns: image."),
    ],
)
def test_a_wrong_example_is_named(example: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_dataset(Listed([(IMAGES[0], 0), example]))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield IMAGES[0], 0


class Counted(Endless):
    def __len__(self) -> int:
        return 1


def test_datasets_without_a_length_or_an_example_are_refused() -> None:
    for endless in (Endless(), Counted()):
        with pytest.raises(InputError, match="give a map-style Dataset"):
            from_dataset(endless)
    with pytest.raises(InputError, match="listed test: the dataset is empty"):
        from_dataset(Listed([(IMAGES[0], 0)]), Listed([]))


ROWS = [{"image": image, "label": i % 2, "animal": ["cat", "dog"][i % 2]} for i, image in enumerate(IMAGES)]


def test_labels_may_be_names() -> None:
    named = from_dataset(Listed([(image, ["cat", "dog"][i % 2]) for i, image in enumerate(IMAGES)]))
    assert named.classes == ("cat", "dog")
    assert named.train_labels.equal(from_dataset(Listed([(x, i % 2) for i, x in enumerate(IMAGES)])).train_labels)


def test_rows_may_be_mappings() -> None:
    rows = from_dataset(Listed(ROWS))
    assert same(rows, from_dataset(Listed([(x, i % 2) for i, x in enumerate(IMAGES)])))
    assert from_dataset(Listed(ROWS), label_column="animal").classes == ("cat", "dog")
    days = [{**row, "day": f"2026-06-{30 - i}"} for i, row in enumerate(ROWS)]
    ordered = from_dataset(Listed(days[:8]), Listed(ROWS[8:]), order="day")
    assert ordered.arrived == tuple(f"2026-06-{30 - i}" for i in range(8))


def test_hugging_face_data_sets_are_read_with_the_names_of_their_classes() -> None:
    import datasets

    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]), id=datasets.Value("int64")
    )
    columns = {"image": IMAGES, "label": [i % 2 for i in range(10)], "id": list(range(10))}
    part = datasets.Dataset.from_dict(columns, features)
    data = load((part, part))
    assert (data.classes, data.train_labels.tolist()) == (("cat", "dog"), [i % 2 for i in range(10)])
    assert np.array_equal(data.train_images[3].permute(1, 2, 0).numpy(), ARRAYS[3])
    with pytest.raises(
        InputError, match=r"is a DatasetDict of 'train'; give one of its parts, such as data\['train'\]"
    ):
        from_dataset(datasets.DatasetDict(train=part))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, {"label_column": "lable"}, "there is no column 'lable'; did you mean 'label'"),
        ([{"x": IMAGES[0], "y": IMAGES[0], "label": 0}], {}, "more than one column holds images; name it with --image"),
        ([ROWS[0], {"image": IMAGES[0]}], {}, "example 1 has no 'label'; give the same columns in each"),
        ([(IMAGES[0], 0)], {"label_column": "label"}, "is a pair without columns, so there is no 'label'"),
        ([(IMAGES[0], "")], {}, "has the label ''; labels must be integers or names"),
    ],
)
def test_wrong_rows_are_named(rows: list[Any], options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_dataset(Listed(rows), **options)


def test_images_that_cannot_be_used_are_named_or_left_out() -> None:
    examples = [(image, i % 2) for i, image in enumerate(IMAGES)]
    examples[3] = examples[4] = (Image.new("F", (5, 5)), 1)
    with pytest.raises(InputError, match="listed: 2 of 10 images cannot be read: listed training example 3, "):
        from_dataset(Listed(examples))
    data = from_dataset(Listed(examples), skip_unreadable=True)
    assert len(data.train_labels) + len(data.test_labels) == 8
    assert data.notes[0].startswith("2 of 10 images cannot be read and are left out")
