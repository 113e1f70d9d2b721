"""What cannot be read is named at once or left out; 16 bits have one rule; months are no classes; any shape is kept."""

from pathlib import Path

import pytest
from PIL import Image

from made_images import class_tree, encode, noise, same, sixteen, write_folder, write_zip
from warmstart.data.load import load
from warmstart.decoding import decode
from warmstart.errors import InputError

PETS = class_tree({"cat": 10, "dog": 10})


def test_all_unreadable_images_are_named_at_once(tmp_path: Path) -> None:
    bad = {f"cat/{i}.png": b"no image" for i in range(4)} | {"dog/3.png": encode(noise(6, 0))[:-40]}
    write_folder(tmp_path, PETS | bad)
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: 5 of 20 images cannot be read: cat/0.png, cat/1.png, cat/2.png, cat/3.png, dog/3.png "
        "(the first: not an image of a known format); replace or remove them, or give --skip-unreadable"
    )


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_unreadable_images_are_left_out_with_a_note(tmp_path: Path, kind: str) -> None:
    parts = class_tree({"cat": 4, "dog": 4}, "train/") | class_tree({"cat": 2, "dog": 2}, "test/")
    tree = parts | {"train/cat/1.png": b"", "test/dog/0.png": b"x"}
    path = write_folder(tmp_path / "d", tree) if kind == "folder" else write_zip(tmp_path / "d.zip", tree)
    data = load(path, skip_unreadable=True)
    whole = load(write_folder(tmp_path / "whole", parts))
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 0, 0, 1, 1, 1, 1], [0, 0, 1])
    assert data.train_images[1:].equal(whole.train_images[2:])
    assert data.test_images.equal(whole.test_images[[0, 1, 3]])
    assert data.notes[0].startswith("2 of 12 images cannot be read and are left out: ")
    assert load(tmp_path / "whole").notes == ()


def test_nothing_readable_is_an_error_all_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path, dict.fromkeys(PETS, b"no image"))
    with pytest.raises(InputError, match="20 of 20 images cannot be read"):
        load(tmp_path, skip_unreadable=True)


def test_images_of_other_formats_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, PETS | {"cat/a.cr2": b"x", "dog/b.JXL": b"x"})
    (note,) = load(tmp_path).notes
    assert note == f"{tmp_path}: 2 files are not read (.cr2, .jxl), such as cat/a.cr2; convert them to PNG or JPEG"
    write_folder(tmp_path / "raw", class_tree({"cat": 3}) | {"dog/a.cr2": b"x", "dog/b.cr2": b"x"})
    with pytest.raises(InputError, match=r"class folder dog holds no image; 2 files are not read \(.cr2\)"):
        load(tmp_path / "raw")


def test_phone_photos_name_their_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if ".heic" in decode.SUFFIXES:
        pytest.skip("pillow-heif is installed")
    write_folder(tmp_path, PETS | {"cat/a.heic": b"x"})
    assert "1 file is not read (.heic), such as cat/a.heic; pip install pillow-heif or" in load(tmp_path).notes[0]


def test_jfif_is_jpeg_and_avif_is_read_where_pillow_can(tmp_path: Path) -> None:
    tree = {f"{label}/{i}.jfif": encode(noise(8, i), "JPEG") for label in ("cat", "dog") for i in range(5)}
    if ".avif" in decode.SUFFIXES:
        tree["dog/9.avif"] = encode(noise(8, 9), "AVIF")
    data = load(write_folder(tmp_path, tree))
    assert len(data.train_labels) + len(data.test_labels) == len(tree)


@pytest.mark.parametrize(
    ("top", "white"), [(65535, 255), (20_000, 78), (4095, 255), (4000, 250), (1023, 255), (255, 255)]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_what_the_data_set_holds(tmp_path: Path, top: int, white: int, kind: str) -> None:
    dark = sixteen(top // 4, kind=kind)
    tree = {f"{part}/{label}/0.{kind.lower()}": dark for part in ("train", "test") for label in "ab"}
    tree[f"test/b/1.{kind.lower()}"] = sixteen(top, kind=kind)  # the test part has the same scale
    data = load(write_folder(tmp_path, tree))
    assert (int(data.test_images.max()), data.channels) == (white, 1)
    assert int(data.train_images.max()) == pytest.approx(white / 4, abs=1)
    expected = [f"images of 16 bits hold values up to {top}: white is"] if top < 2**14 else []
    assert [note[: note.index(" in all")].rpartition(" ")[0] for note in data.notes] == expected


def test_months_say_when_and_are_no_classes(tmp_path: Path) -> None:
    tree = class_tree({"cat": 4, "dog": 4}, "2026-06/") | class_tree({"dog": 2, "emu": 4}, "202605/")
    data = load(write_folder(tmp_path, tree))
    assert data.classes == ("cat", "dog", "emu")
    assert data.arrived is not None
    assert list(data.arrived) == sorted(data.arrived)
    assert (len(data.arrived), set(data.arrived)) == (14, {"2026-05", "2026-06"})
    assert load(tmp_path, order="month").arrived == load(tmp_path, order="given").arrived == data.arrived
    with pytest.raises(InputError, match="folders have no column 'day2'; order by month"):
        load(tmp_path, order="day2")
    parts = {f"train/{name}": x for name, x in tree.items()} | class_tree({"cat": 2, "emu": 1}, "test/")
    assert len(load(write_folder(tmp_path / "parts", parts)).arrived or ()) == 14


@pytest.mark.parametrize("other", ["two", "2026-13"])
def test_months_beside_other_folders_never_become_classes(tmp_path: Path, other: str) -> None:
    write_folder(tmp_path, class_tree({"cat": 3, "dog": 3}, "2026-06/") | class_tree({"cat": 3, "dog": 3}, f"{other}/"))
    with pytest.raises(InputError, match=f"the folder 2026-06 is a month, but {other} beside it is none; put all"):
        load(tmp_path)


def test_months_without_classes_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, class_tree({"2026-05": 3, "2026-06": 3}))
    with pytest.raises(
        InputError, match="2026-05 is a month or day without class folders; arrange them as 2026-05/CLASS/"
    ):
        load(tmp_path)


def test_an_order_without_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folders have no column 'day'; put the class folders into folders such as"):
        load(write_folder(tmp_path, PETS), order="day")
    with pytest.raises(InputError, match="digits: there are no columns, so no 'day' to order by"):
        load("digits", order="day")


def wide(count: int = 6) -> dict[str, bytes]:
    return {f"{label}/{i}.png": encode(noise(4, i, width=10)) for label in ("cat", "dog") for i in range(count)}


def test_images_of_one_shape_need_not_be_square(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, wide()))
    assert (data.image_size, data.train_images.shape[1:]) == ((4, 10), (3, 4, 10))


@pytest.mark.parametrize("size", [(6, 8), "6x8", "6X8 "])
def test_a_size_may_be_height_and_width(tmp_path: Path, size: tuple[int, int] | str) -> None:
    write_folder(tmp_path, wide())
    assert load(tmp_path, image_size=size).image_size == (6, 8)
    assert load(load(tmp_path), image_size=size).image_size == (6, 8)
    assert load("digits", image_size=size).image_size == (6, 8)
    assert load(tmp_path, image_size="8x8").image_size == 8


def test_proportions_are_kept_by_crop_and_pad(tmp_path: Path) -> None:
    photo = Image.new("RGB", (30, 10), "blue")
    photo.paste("white", (10, 0, 20, 10))  # the middle third
    write_folder(tmp_path, {f"{label}/{i}.png": encode(photo) for label in "ab" for i in range(3)})
    assert load(tmp_path, image_size=10, fit="crop").train_images.min() == 255
    padded = load(tmp_path, image_size=30, fit="pad").train_images[0]
    assert padded[:, :10].max() == padded[:, 20:].max() == 0
    assert padded[:, 10:20].permute(1, 2, 0).numpy().tobytes() == photo.tobytes()
    assert not same(load(tmp_path, image_size=10, fit="stretch"), load(tmp_path, image_size=10, fit="crop"))
    with pytest.raises(InputError, match="fit 'squeeze' is unknown"):
        load(tmp_path, image_size=10, fit="squeeze")
