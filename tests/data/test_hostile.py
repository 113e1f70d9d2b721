"""Data that would hang the process or fill its memory, and names that would spoil a terminal: one line each."""

import io
import json
import lzma
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from made_originals import cifar10_tree, pixels, write_svhn
from PIL import Image
from pyarrow import parquet
from scipy.io import savemat
from torch.utils.data import Dataset

from made_images import class_tree, encode, noise, write_folder, write_tar, write_zip
from warmstart.data.checksums import verify_official
from warmstart.data.load import load
from warmstart.data.paper_data import find_original, load_paper_data
from warmstart.data.pickles import read_pickle
from warmstart.data.torch_datasets import from_dataset
from warmstart.decoding import bounds
from warmstart.errors import InputError

BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
from warmstart.data.load import load
from warmstart.errors import InputError
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        load(path)
    except InputError as error:
        after = resource.getrusage(resource.RUSAGE_SELF)
        print(error)
        print(after.ru_utime - before.ru_utime, (after.ru_maxrss - before.ru_maxrss) / 1024)
"""


def refused(*paths: Path) -> list[str]:
    """The one line with which each data set is refused by a process of its own, soon and without much memory."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BOUNDED, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(paths)
    for cost in lines[1::2]:
        seconds, mebibytes = map(float, cost.split())
        assert seconds < 120  # honest data takes less than one, and a bomb hours
        assert mebibytes < 1200
    return lines[::2]


def shown(read: Callable[..., Any], *arguments: Any) -> str:
    """The one line of an InputError."""
    with pytest.raises(InputError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 2100
    return message


# Pickles


COLLIDING = b"".join(b"\x8a\x09" + (i * (2**61 - 1)).to_bytes(9, "little") + b"K\x01" for i in range(99))
MEGABYTE = (2**20).to_bytes(4, "little") + b"a" * 2**20
ENCODED = b"c_codecs\nencode\nh\x00U\x06latin1\x86R"
REBUILT = b"cnumpy.core.multiarray\n_reconstruct\nh\x00R"
PICKLES = {
    "nested tuples as a key": b"\x80\x02}(K\x01\x85" + b"q\x00h\x00\x86" * 300 + b"K\x01u.",
    "nested tuples as one key": b"\x80\x02}K\x01\x85" + b"q\x00h\x00\x86" * 300 + b"K\x01s.",
    "nested tuples in a dict": b"\x80\x02(K\x01\x85" + b"q\x00h\x00\x86" * 300 + b"K\x01d.",
    "deep tuples as a key": b"\x80\x02}K\x01" + b"\x85" * 1_000_000 + b"K\x01s.",
    "frozensets": b"\x80\x04}(" + b"(K\x01\x91" + b"q\x00(h\x00h\x00\x86\x91" * 60 + b"K\x01u.",
    "sets": b"\x80\x04" + b"\x8f" * 1000 + b".",
    "a key of integers that collide": b"\x80\x02}(" + COLLIDING + b"u.",
    "a memo of 16 GB": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a memo by name": b"}p99999999999999999999\n.",
    "a long integer": b"\x80\x02}U\x01a\x8b\xff\xff\xff\x7f1s.",
    "a bytearray of 100 GB": b"\x80\x05}U\x01a\x96" + (10**11).to_bytes(8, "little") + b"s.",
    "bytes of 100 GB": b"\x80\x05}U\x01a\x8e" + (10**11).to_bytes(8, "little") + b"s.",
    "a frame of 100 GB": b"\x80\x04\x95" + (10**11).to_bytes(8, "little") + b"}.",
    "objects without end": b"\x80\x02}U\x01a" + b"]" * 4_000_000 + b".",
    "the same bytes again": b"\x80\x02}U\x01a](X" + MEGABYTE + b"q\x00" + ENCODED * 9000 + b"es.",
    "arguments without end": b"\x80\x02](" + b"K\x01" * 100_000 + b"eq\x000}U\x01a](" + REBUILT * 9000 + b"es.",
    "a state for a function": b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",
    "nested names": b"\x80\x02}U\x0blabel_names](]" + b"q\x00(h\x00h\x00l" * 60 + b"es.",
    "a shape of 10^10": pickle.dumps({"data": pixels(1, 0)}, 2).replace(b"K\x01K\x03", b"J\xff\xff\xff\x7fK\x03"),
}  # fmt: skip


def test_pickles_that_spin_or_grow_are_refused(tmp_path: Path) -> None:
    folders, parts = [], []
    for place, (name, content) in enumerate(PICKLES.items()):
        parts.append("batches.meta" if name == "nested names" else "data_batch_1")
        tree = cifar10_tree() | {f"cifar-10-batches-py/{parts[-1]}": content}
        folders.append(write_folder(tmp_path / str(place), tree))
    for folder, part, message in zip(folders, parts, refused(*folders), strict=True):
        assert message.startswith(f"{folder}: cifar-10-batches-py")
        assert part in message
        assert re.search("download (it|the data set) again", message)


def test_a_dictionary_of_very_many_entries_is_refused() -> None:
    assert "dictionary of a few" in shown(read_pickle, "batch", pickle.dumps({str(i): 1 for i in range(2000)}))


# Pipes and devices


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe", "link to a device"])
@pytest.mark.parametrize(
    "name", ["a.npz", "a.parquet", "a.zip", "a.tar.gz", "a.csv", "train_32x32.mat", "tiny-imagenet-200.zip"]
)
def test_a_pipe_or_device_is_never_opened(tmp_path: Path, name: str, kind: str) -> None:
    path = odd_file(tmp_path, tmp_path / name, kind)
    assert shown(load, path) == f"{path}: a folder, pipe or device, not a regular file; replace or remove it"
    if name == "tiny-imagenet-200.zip":
        assert "not a regular file" in shown(verify_official, path)
    assert "not a regular file" in shown(load_paper_data, "cifar10", path)


def odd_file(tmp_path: Path, path: Path, kind: str) -> Path:
    target = Path("/dev/zero") if "device" in kind else path if kind == "pipe" else tmp_path / "pipe"
    if "pipe" in kind:
        os.mkfifo(target)
    if target != path:
        path.symlink_to(target)
    return path


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
@pytest.mark.parametrize("name", ["cat/0.png", "train.parquet", "cifar-10-batches-py/test_batch"])
def test_a_pipe_or_device_inside_a_folder_is_named(tmp_path: Path, name: str, kind: str) -> None:
    tree = class_tree({"cat": 3, "dog": 3}) if name.startswith("cat") else cifar10_tree()
    folder = write_folder(tmp_path / "data", tree)
    (folder / name).unlink(missing_ok=True)
    odd_file(tmp_path, folder / name, kind)
    message = f"{folder / name}: a folder, pipe or device, not a regular file; replace or remove it"
    assert shown(load, folder).removesuffix(", or give --skip-unreadable") == message


class OfProc(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        assert 0 <= size < 2**20, "it is read for ever"
        return bytes(size)


def test_a_file_that_claims_no_bytes_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some files of /proc do."""
    write_folder(tmp_path, class_tree({"cat": 3, "dog": 3}))
    endless = tmp_path / "cat" / "1.png"
    endless.write_bytes(b"")
    plain = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *how, **more: OfProc() if path == endless else plain(path, *how, **more)
    )
    assert "cat/1.png: not an image of a known format" in shown(load, tmp_path)


# What unpacks without end


def test_an_npz_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in ("images", "labels"):
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "|u1", "fortran_order": False, "shape": (700, 1000, 1000)}
                )
                for _ in range(70):
                    file.write(bytes(10_000_000))
    (message,) = refused(path)
    assert message.startswith(f"{path}: ")
    assert "unpack to 1 GB" in message


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_packed_otherwise_is_refused(tmp_path: Path, packing: int) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("images.npy", bytes(1000))
    assert shown(load, path) == f"{path}: not packed by NumPy; save it again with numpy.savez"


def npy(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    encoded = header.encode("latin1")
    return b"\x93NUMPY" + version + struct.pack("<H", len(encoded)) + encoded + content


NPY = {
    "huge": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000, 32, 32)}\n", bytes(100)),
    "astronomic": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296)}\n"),
    "negative": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-5, 32, 32)}\n", bytes(100)),
    "unclosed": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (5, 32\n"),
    "unclosed string": npy("{'descr': '|u1\n"),
    "deep": npy("(" * 9000),
    "no dictionary": npy("5\n"),
    "odd type": npy("{'descr': [('a', 'x')], 'fortran_order': False, 'shape': (5,)}\n"),
    "odd shape": npy("{'descr': '|u1', 'fortran_order': False, 'shape': 'abc'}\n"),
    "unknown version": npy("{}\n", version=b"\x07\x00"),
    "no numpy": b"hello",
    "empty": b"",
    "voids": npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000, 1, 1)}\n"),
}


@pytest.mark.parametrize("name", NPY)
def test_odd_headers_of_arrays_give_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", NPY[name])
        archive.writestr("labels.npy", NPY[name])
    assert shown(load, path).startswith(f"{path}: ")


def test_numbers_at_the_ends_of_their_types_give_no_warning(tmp_path: Path) -> None:
    for low, high in ((-np.inf, np.inf), (np.float16(6e4), np.float16(6e4)), (np.iinfo(np.int64).min, -5)):
        images = np.array([low, high] * 8).reshape(4, 2, 2)
        np.savez(tmp_path / "a.npz", images=images, labels=[0, 0, 1, 1])
        assert "images holds values from" in shown(load, tmp_path / "a.npz")


SMALL = 2**24
"""What may be unpacked in the tests of archives, for speed."""


def zeros_zip(path: Path, size: int, count: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for i in range(count):
            archive.writestr(f"{'cat' if i % 2 else 'dog'}/{i}.png", bytes(size))
    return path


def test_a_zip_of_kilobytes_that_unpacks_to_megabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "_FREE_BYTES", SMALL)
    path = zeros_zip(tmp_path / "a.zip", 2**20, 18)
    assert path.stat().st_size < 5_000
    assert shown(load, path).startswith(f"{path}: 3 kB that unpack to 19 MB or more, over 200 times as much")


@pytest.mark.parametrize("name", ["a.tar.xz", "a.tar.bz2", "a.tar.gz"])
def test_a_tar_that_unpacks_to_megabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(bounds, "_FREE_BYTES", SMALL)
    with tarfile.open(tmp_path / name, f"w:{name.rpartition('.')[2]}") as archive:
        for i in range(18):
            member = tarfile.TarInfo(f"{'cat' if i % 2 else 'dog'}/{i}.png")
            member.size = 2**20
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    assert "that unpack to 17 MB or more" in shown(load, tmp_path / name)


def test_a_member_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    path = zeros_zip(tmp_path / "a.zip", 200 * 2**20, 3)
    content = path.read_bytes().replace((200 * 2**20).to_bytes(4, "little"), (100_000).to_bytes(4, "little"))
    path.write_bytes(content)
    (message,) = refused(path)
    assert "dog/0.png: " in message


def test_an_archive_of_very_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_FREE_BYTES", SMALL)
    with lzma.open(tmp_path / "a.tar.xz", "wb", preset=0) as stream:
        stream.write(tarfile.TarInfo("cat/0.png").tobuf() * 3000)
    assert "unpack to 17 MB or more" in shown(load, tmp_path / "a.tar.xz")


def tar_header(**fields: Any) -> bytes:
    member = tarfile.TarInfo("cat/0.png")
    for name, value in fields.items():
        setattr(member, name, value)
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        tar_header(size=2**80) + bytes(512),
        tar_header(size=2**40) + bytes(512),
        tar_header(type=tarfile.XHDTYPE, size=2**35) + bytes(1024),
        tar_header(type=tarfile.GNUTYPE_LONGNAME, size=2**60) + bytes(1024),
        tar_header(type=tarfile.XHDTYPE, size=0) * 3000 + bytes(1024),
        tar_header(type=tarfile.XHDTYPE, size=512) + b"99999999999999999 path=a\n".ljust(512, b"\0") + bytes(1024),
        b"\x1f\x8b" + bytes(30),
        b"BZh9" + bytes(30),
        b"\xfd7zXZ\0" + bytes(30),
        b"",
    ],
)
def test_odd_tars_give_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    assert shown(load, tmp_path / "a.tar").startswith(f"{tmp_path}/a.tar: ")


def test_a_mat_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = write_svhn(tmp_path) / "test_32x32.mat"
    packer = zlib.compressobj(1)
    header = struct.pack("<IIIIIIII", 14, 2**31, 6, 8, 9, 0, 5, 16) + struct.pack("<IIII", 32, 32, 3, 10**6)
    header += struct.pack("<II", 1 << 16 | 1, ord("X")) + struct.pack("<II", 2, 3 * 10**9)
    packed = packer.compress(header) + b"".join(packer.compress(bytes(10**7)) for _ in range(130)) + packer.flush()
    path.write_bytes(path.read_bytes()[:128] + struct.pack("<II", 15, len(packed)) + packed)
    (message,) = refused(path)
    assert f"{path}: cannot be read" in message


def test_nested_cells_of_a_mat_file_are_not_followed(tmp_path: Path) -> None:
    path = write_svhn(tmp_path) / "test_32x32.mat"
    cell = struct.pack("<IIIIIIII", 6, 8, 1, 0, 5, 8, 1, 1) + struct.pack("<II", 1 << 16 | 1, ord("X"))
    depth = 200_000
    cells = b"".join(struct.pack("<II", 14, (depth - i) * (len(cell) + 8) - 8) + cell for i in range(depth))
    path.write_bytes(path.read_bytes()[:128] + cells)
    (message,) = refused(path)
    assert "there is no array X" in message


def test_values_of_an_unknown_type_in_a_mat_file_do_not_crash_the_process(tmp_path: Path) -> None:
    path = write_svhn(tmp_path, compressed=False) / "test_32x32.mat"
    values = struct.pack("<II", 2, 20 * 3072)
    for kind in (0, 8, 14, 200, 2**15):
        path.write_bytes(path.read_bytes().replace(values, struct.pack("<II", kind, 20 * 3072)))
        values = struct.pack("<II", kind, 20 * 3072)
        assert "there is no array X" in refused(path)[0]


def test_other_versions_of_mat_files_give_one_line(tmp_path: Path) -> None:
    path = write_svhn(tmp_path) / "test_32x32.mat"
    savemat(path, {"X": np.zeros((32, 32)), "y": [[1]]}, format="4")
    assert "test_32x32.mat: cannot be read (not in MATLAB's format 5)" in shown(load, tmp_path)


# Tables


CONTENTS = [encode(noise(5, i)) for i in range(10)]
LABELS = [i % 2 for i in range(10)]


def table(path: Path, columns: dict[str, Any], metadata: Any = None) -> Path:
    made = pyarrow.table(columns)
    if metadata is not None:
        text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        made = made.replace_schema_metadata({"huggingface": text})
    parquet.write_table(made, path)
    return path


def features(**columns: Any) -> Any:
    return {"info": {"features": {"img": {"_type": "Image"}, **columns}}}


@pytest.mark.parametrize(
    "metadata",
    [
        b"no json",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        5,
        None,
        {"info": 5},
        {"info": {"features": 5}},
        {"info": {"features": []}},
        features(),
        features(label=5),
        features(label={"_type": "Nothing"}),
        features(label={"_type": "ClassLabel"}),
        features(label={"_type": "ClassLabel", "names": 5}),
        features(label={"_type": "ClassLabel", "names": [[1], {}]}),
        features(label={"_type": "ClassLabel", "names": ["a"]}),
        features(label={"_type": "ClassLabel", "num_classes": 10**11}),
        features(label={"_type": "Value", "dtype": "no_type"}),
        features(label={"_type": "Value"}),
        features(other={"_type": "Value", "dtype": "int64"}),
    ],
)
def test_odd_metadata_of_a_table_give_one_line_or_are_passed_over(tmp_path: Path, metadata: Any) -> None:
    path = table(tmp_path / "a.parquet", {"img": CONTENTS, "label": LABELS}, metadata)
    try:
        load(path)
    except InputError:
        assert shown(load, path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "labels",
    [
        pyarrow.array([[1]] * 10),
        pyarrow.array([{"a": 1}] * 10),
        pyarrow.array([1.5] * 10),
        pyarrow.array([b"a"] * 10),
        pyarrow.array([None] * 10),
        pyarrow.array([2**63 + i % 2 for i in range(10)], pyarrow.uint64()),
        pyarrow.array([1] * 10, pyarrow.timestamp("s")),
        pyarrow.array([1] * 10, pyarrow.decimal128(5)),
        pyarrow.array(["a" * 100_000] * 10),
        pyarrow.DictionaryArray.from_arrays([0, 1] * 5, ["a", "b"]),
    ],
)
@pytest.mark.parametrize("declared", [False, True])
def test_labels_of_odd_types_give_one_line_or_are_read(tmp_path: Path, labels: Any, declared: bool) -> None:
    named = features(label={"_type": "ClassLabel", "names": ["a", "b"]}) if declared else None
    path = table(tmp_path / "a.parquet", {"img": CONTENTS, "label": labels}, named)
    try:
        load(path)
    except InputError:
        assert "label" in shown(load, path)


@pytest.mark.parametrize(
    "value",
    [
        {"bytes": None, "path": "/dev/zero"},
        {"bytes": None, "path": 0},
        {"bytes": "text", "path": None},
        {"path": 1},
    ],
)
def test_images_of_odd_types_are_refused(tmp_path: Path, value: Any) -> None:
    declared = features(label={"_type": "Value", "dtype": "int64"})
    path = table(tmp_path / "a.parquet", {"img": [value] * 10, "label": LABELS}, declared)
    assert shown(load, path).startswith(f"{path}: ")


def test_a_table_of_rows_without_end_is_refused(tmp_path: Path) -> None:
    count = 1_000_000
    img = pyarrow.DictionaryArray.from_arrays(np.zeros(count, np.int32), [CONTENTS[0]])
    path = table(tmp_path / "a.parquet", {"img": img, "label": np.zeros(count, np.int8)})
    assert path.stat().st_size < 100_000
    assert "unpack to 8 GB or more" in shown(load, path)


def test_the_same_large_image_again_and_again_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_FREE_BYTES", SMALL)
    large = encode(Image.new("L", (1000, 1000)), "BMP")
    img = pyarrow.DictionaryArray.from_arrays(np.zeros(20, np.int32), [large])
    path = table(tmp_path / "a.parquet", {"img": img, "label": [0, 1] * 10})
    assert path.stat().st_size < 80_000
    assert "unpack to 17 MB or more" in shown(load, path)


# Images


class Listed(Dataset[Any]):
    def __init__(self, *examples: Any) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_tensors_of_every_floating_type_are_read(kind: torch.dtype) -> None:
    images = [torch.full((3, 4, 4), value).to(kind) for value in (0.0, 0.5, 1.0, 1.0)]
    data = from_dataset(Listed(*((image, i % 2) for i, image in enumerate(images))))
    assert data.train_images.unique().tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "image",
    [
        torch.empty(3, 4, 4, device="meta"),
        torch.zeros(4, 4).to_sparse(),
        torch.zeros(4, 4, dtype=torch.complex64),
        torch.zeros(4, 4, dtype=torch.bool),
        np.zeros((4, 4), object),
        np.zeros((4, 4), "datetime64[s]"),
        np.array("text"),
        Image.new("F", (4, 4)),
        Image.new("I", (4, 4)),
        Image.new("La", (4, 4)),
        Image.new("RGB", (0, 0)),
    ],
)
def test_images_that_are_none_give_one_line(image: Any) -> None:
    assert "listed training example 0" in shown(from_dataset, Listed((image, 0), (image, 0)))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I;16"]
)
def test_images_of_every_mode_are_read(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    assert from_dataset(Listed((image, 0), (image, 0))).image_size == 4


def test_a_truncated_image_of_a_data_set_is_named() -> None:
    content = encode(noise(64, 0), "JPEG")
    opened = [Image.open(io.BytesIO(content[: len(content) // 2])) for _ in range(2)]
    said = shown(from_dataset, Listed(*((x, 0) for x in opened)))
    assert "2 of 2 images cannot be read: listed training example 0, listed training example 1 (the first: " in said


class Failing(Listed):
    def __getitem__(self, index: int) -> Any:
        raise KeyError("no such\nfile")


class Endless(Listed):
    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, index: int) -> Any:
        return noise(100, 0), 0


class Lengthless(Listed):
    def __len__(self) -> int:
        raise OSError("gone")


def test_a_data_set_that_fails_is_named() -> None:
    assert "failing training example 0: cannot be read (KeyError: " in (message := shown(from_dataset, Failing(1)))
    assert message.endswith("mend the dataset, or leave the example out")
    assert "GB of memory" in shown(from_dataset, Endless())
    assert "give a map-style Dataset" in shown(from_dataset, Lengthless())


def test_classes_of_a_data_set_that_are_no_list_are_passed_over() -> None:
    listed = Listed(*((noise(4, i), i % 2) for i in range(4)))
    listed.classes = 10  # type: ignore[attr-defined]  # as some have it
    assert from_dataset(listed).classes == ("0", "1")


# Names


@pytest.mark.parametrize(
    "data", ["a" * 300, "b/" + "a" * 300 + "/c.npz", "~nosuchuser/x.npz", "a\0b", "\udcff.npz", "c.npz/d"]
)
def test_names_that_no_file_can_have_give_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert "accepted are" in shown(load, data)
    assert "accepted are" in shown(find_original, "cifar10", Path(data))


@pytest.mark.parametrize("name", ["", " ", ":small", "a b", "../x", "/etc", "a/b/c", "x\n"])
def test_names_that_no_data_set_of_the_hub_can_have_are_refused(name: str) -> None:
    message = shown(load, f"hf:{name}")
    assert message.endswith("no name of a data set; write hf:NAME or hf:NAME:CONFIG, as hf:uoft-cs/cifar10")


RED = "\x1b[31mcat\x1b[0m\n"


@pytest.mark.parametrize("write", [write_folder, write_tar])
def test_names_of_classes_with_escapes_are_harmless(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / f"{RED}.tar", class_tree({RED: 3, "\udcffdog": 3}))
    data = load(path)
    assert data.classes == ("\\x1b[31mcat\\x1b[0m\\n", "\\udcffdog")
    assert data.name.isprintable()
    path = write(tmp_path / f"{RED}{RED}.tar", class_tree({RED: 3, "\udcffdog": 3}) | {f"{RED}/x.png": b"no image"})
    assert "x.png: not an image" in shown(load, path)


def zipped(tmp_path: Path, old: bytes, new: bytes) -> Path:
    path = write_zip(tmp_path / "a.zip", class_tree({"cat": 3, "dog": 3}))
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


CENTRAL, LOCAL = b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00", b"PK\x03\x04\x14\x00\x00\x00\x08\x00"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (CENTRAL, b"PK\x01\x02\x14\x03\x7f\x00\x00\x00\x08\x00"),  # needs version 12.7
        (CENTRAL, b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63\x00"),  # an unknown packing
        (CENTRAL, b"PK\x01\x02\x14\x03\x14\x00\x01\x00\x08\x00"),  # encrypted
        (CENTRAL, b"PK\x01\x02\x14\x03\x14\x00\x20\x00\x08\x00"),  # a patch
        (CENTRAL, b"PK\x01\x02\x14\x03\x14\x00\x40\x00\x08\x00"),  # strongly encrypted
        (LOCAL, b"PK\x03\x04\x14\x00\x01\x00\x08\x00"),  # encrypted, but only there
        (b"cat/0.png", b"\xff\xfe\xfd/0.png"),
    ],
)
def test_zips_that_python_cannot_unpack_give_one_line(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = zipped(tmp_path, old, new)
    try:
        load(path)
    except InputError:
        assert shown(load, path).startswith(f"{path}: ")


def test_names_that_are_no_utf8_though_they_say_so_give_one_line(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", class_tree({"cät": 3, "dog": 3}))
    path.write_bytes(path.read_bytes().replace("cät".encode(), b"c\xff\xfet"))
    assert shown(load, path).startswith(f"{path}: cannot be read (")
