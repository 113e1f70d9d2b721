"""Images that a CSV or metadata file lists: parts, columns, labels, order, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from made_images import Tree, encode, noise, same, write_folder, write_tar, write_zip
from warmstart.data.load import load
from warmstart.errors import InputError

COUNT = 10
IMAGES: Tree = {f"im/{i}.png": encode(noise(5, i)) for i in range(COUNT)}
ANIMALS = ["cat", "dog"] * (COUNT // 2)


def listed(*columns: list[object], header: str = "path,label", between: str = ",") -> bytes:
    lines = [between.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([header.replace(",", between), *lines, ""]).encode()


PATHS: list[object] = list(IMAGES)
PLAIN = listed(PATHS, ANIMALS)


def pixels(place: int) -> bytes:
    return np.asarray(noise(5, place)).tobytes()


def test_a_csv_beside_its_images(tmp_path: Path) -> None:
    write_folder(tmp_path, IMAGES | {"labels.csv": PLAIN})
    data = load(tmp_path / "labels.csv")
    assert (data.name, data.classes) == ("labels", ("cat", "dog"))
    assert (len(data.train_labels), len(data.test_labels), data.arrived) == (10, 0, None)
    for image, label in zip(data.train_images, data.train_labels, strict=True):
        place = next(i for i in range(COUNT) if pixels(i) == image.permute(1, 2, 0).numpy().tobytes())
        assert ANIMALS[place] == data.classes[label]


@pytest.mark.parametrize("write", [write_folder, write_zip, write_tar])
def test_a_folder_or_archive_with_one_list_is_read_by_it(tmp_path: Path, write: object) -> None:
    write_folder(tmp_path / "d", IMAGES | {"labels.csv": PLAIN})
    suffix = {"write_folder": "", "write_zip": ".zip", "write_tar": ".tar"}[write.__name__]  # type: ignore[attr-defined]
    path = write(tmp_path / f"again{suffix}", IMAGES | {"labels.csv": PLAIN})  # type: ignore[operator]
    assert same(load(path), load(tmp_path / "d" / "labels.csv"))


@pytest.mark.parametrize(
    "content",
    [
        listed(PATHS, ANIMALS, between=";"),
        listed(PATHS, ANIMALS, between="\t"),
        b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n"),
        listed([f'"{path}"' for path in PATHS], [f" {animal} " for animal in ANIMALS]),
        listed(ANIMALS, PATHS, header="species,file"),
    ],
)
def test_every_usual_way_to_write_a_csv_gives_the_same(tmp_path: Path, content: bytes) -> None:
    write_folder(tmp_path, IMAGES | {"a.csv": PLAIN, "b.csv": content})
    assert same(load(tmp_path / "b.csv"), load(tmp_path / "a.csv"))


def test_hub_metadata_of_each_part(tmp_path: Path) -> None:
    lines = [json.dumps({"file_name": f"{i}.png", "label": i % 2, "boxes": [1]}) for i in range(4)]
    images = {f"{part}/{i}.png": encode(noise(5, i)) for part in ("train", "test") for i in range(4)}
    metadata = {f"{part}/metadata.jsonl": "\n".join(lines).encode() for part in ("train", "test")}
    data = load(write_folder(tmp_path, images | metadata))
    assert (data.classes, data.train_labels.tolist(), data.test_labels.tolist()) == (
        ("0", "1"),
        [0, 1, 0, 1],
        [0, 1] * 2,
    )
    assert data.train_images[3].permute(1, 2, 0).numpy().tobytes() == pixels(3)


def test_a_split_column_or_folders_of_parts(tmp_path: Path) -> None:
    split = ["train"] * 6 + ["extra", "Val", "test", "test"]
    write_folder(tmp_path, IMAGES | {"labels.csv": listed(PATHS, ANIMALS, split, header="path,label,split")})
    data = load(tmp_path)
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 1, 0, 1, 0, 1], [0, 1])
    assert [note.rpartition(": ")[2] for note in data.notes] == [
        "rows of 'extra' are not used",
        "rows of 'Val' are not used",
    ]
    parts = {f"{'train' if i < 8 else 'valid'}/{i}.png": IMAGES[f"im/{i}.png"] for i in range(COUNT)}
    data = load(write_folder(tmp_path / "b", parts | {"all.csv": listed(list(parts), ANIMALS)}))
    assert (len(data.train_labels), data.test_labels.tolist()) == (8, [0, 1])


def test_columns_are_chosen_and_the_order_is_kept(tmp_path: Path) -> None:
    day = [f"2026-06-{30 - i}" for i in range(COUNT)]
    names = "path,animal,colour,day,split"
    split = ["train"] * 8 + ["test"] * 2
    write_folder(tmp_path, IMAGES | {"a.csv": listed(PATHS, ANIMALS, [7, 8] * 5, day, split, header=names)})
    with pytest.raises(InputError, match="more than one column holds labels; name it with --label-column"):
        load(tmp_path)
    data = load(tmp_path, label_column="colour", order="day")
    assert (data.classes, data.arrived) == (("7", "8"), tuple(day[:8]))
    with pytest.raises(InputError, match="no column 'dai'; did you mean 'day'"):
        load(tmp_path, label_column="colour", order="dai")
    with pytest.raises(InputError, match="no column 'colours'; did you mean 'colour'"):
        load(tmp_path, label_column="colours")


def test_whole_numbers_are_in_their_order(tmp_path: Path) -> None:
    write_folder(tmp_path, IMAGES | {"a.csv": listed(PATHS, [9, 10] * 5)})
    assert load(tmp_path).classes == ("9", "10")


def test_the_folder_keeps_class_folders_where_the_csv_is_about_something_else(tmp_path: Path) -> None:
    tree = {f"{animal}/{i}.png": IMAGES[f"im/{i}.png"] for i, animal in enumerate(ANIMALS)}
    data = load(write_folder(tmp_path, tree | {"prices.csv": b"item,price\nfood,3\n"}))
    assert data.classes == ("cat", "dog")


def test_of_several_lists_one_is_to_be_named(tmp_path: Path) -> None:
    write_folder(tmp_path, IMAGES | {"a.csv": PLAIN, "b.csv": PLAIN, "notes.csv": b"day,rain\nmonday,3\n"})
    with pytest.raises(InputError, match=r"a\.csv, b\.csv all name images; give the path of the one to read"):
        load(tmp_path)
    (tmp_path / "b.csv").unlink()
    assert load(tmp_path).classes == ("cat", "dog")


def test_the_order_may_be_that_of_the_labels(tmp_path: Path) -> None:
    taken = [f"2026-06-{day + 1:02}" for day in range(COUNT)]
    write_folder(tmp_path, IMAGES | {"labels.csv": listed(PATHS, ANIMALS, taken, header="path,label,taken")})
    assert load(tmp_path, order="label").arrived == tuple(ANIMALS)


def test_images_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, IMAGES | {"x.png": IMAGES["im/0.png"], "a.csv": PLAIN}))
    assert data.notes == (f"{tmp_path}/a.csv: does not name 1 image such as x.png",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            listed([*PATHS[:8], "im/x.png", "im/y.png"], ANIMALS),
            r"line 10: 2 of 10 images are not there, such as im/x.png",
        ),
        (listed([*PATHS[:9], "im/x.png"], ANIMALS), r"line 11: there is no im/x.png; paths are relative to the list"),
        (listed([*PATHS[:9], "./im/0.png"], ANIMALS), r"line 11: ./im/0.png is there already \(a.csv line 2\)"),
        (listed([*PATHS[:9], ""], ANIMALS, header="image,label"), "line 11: 'image' is empty"),
        (listed(PATHS, [*ANIMALS[:9], ""]), "line 11: 'label' is empty; fill it, or remove the row"),
        (listed(PATHS, ANIMALS, header="label,label"), "its first line must name each column once"),
        (listed(PATHS, ANIMALS, header="path,label") + b"im/1.png\n", "line 12: 1 values for 2 columns"),
        (listed(PATHS, ANIMALS, ["x"] * COUNT, header="path,label,split"), "no row is of the part 'train', but x"),
        (listed(ANIMALS, ANIMALS, header="what,label"), "no column holds images; name it with --image-column"),
        (b"path,label\n", "no rows; name an image and its label in each"),
        (b"", "no rows"),
        (b"path,label\n\xff\xfe,1\n", "cannot be read .*; save it in UTF-8"),
        (b'path,label\n"im/0.png,cat\n', "cannot be read .*; correct it"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    write_folder(tmp_path, IMAGES | {"a.csv": content})
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "a.csv")
    assert "\n" not in str(caught.value)


def test_images_that_are_not_there_can_be_skipped(tmp_path: Path) -> None:
    split = ["train"] * 8 + ["test"] * 2
    content = listed(["im/no.png", *PATHS[1:]], ANIMALS, split, range(COUNT), header="path,label,split,day")
    data = load(write_folder(tmp_path, IMAGES | {"a.csv": content}), skip_unreadable=True, order="day")
    assert (len(data.train_labels), data.arrived) == (7, tuple("1234567"))
    assert data.train_images[0].permute(1, 2, 0).numpy().tobytes() == pixels(1)
    assert "1 of 10 images cannot be read and are left out: im/no.png" in data.notes[-1]
