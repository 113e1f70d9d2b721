"""Damaged data of every kind that `--data PATH` takes: each is read, or refused in one line, soon, in little memory."""

from __future__ import annotations

import multiprocessing
import random
import resource
import time
import warnings
import zipfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow
from made_originals import cifar10_tree, cifar100_tree, write_svhn
from PIL import Image
from pyarrow import parquet

from made_images import Tree, class_tree, encode, noise, tiny_imagenet_tree, write_folder, write_tar, write_zip
from warmstart.data.load import load
from warmstart.errors import InputError

SECONDS = 60.0
MEBIBYTES = 1024.0

# Valid examples: each writes into a new folder and returns what `--data` would name.


def images(kind: str, mode: str = "RGB") -> Tree:
    """Class folders of images of one format."""
    whole = Image.new(mode, (8, 8))
    whole.paste(noise(6, 1).convert(mode) if mode not in {"LA", "I;16"} else Image.new(mode, (6, 6)), (1, 1))
    content = encode(whole, kind)
    return {f"{label}/{i}.{kind.lower()}": content for label in ("cat", "dog") for i in range(2)}


def write_npz(folder: Path, save: Callable[..., None]) -> Path:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8), np.arange(8) % 2
    save(folder / "a.npz", x_train=pixels / 255, y_train=labels, x_test=pixels[:2] / 255, y_test=labels[:2])
    return folder / "a.npz"


def write_parquet(folder: Path, compression: str, named: bool) -> Path:
    contents = [encode(noise(5, i)) for i in range(8)]
    img = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)] if named else contents
    table = pyarrow.table({"img": img, "label": [i % 2 for i in range(8)]})
    if named:
        label = '{"names": ["cat", "dog"], "_type": "ClassLabel"}'
        features = f'{{"info": {{"features": {{"img": {{"_type": "Image"}}, "label": {label}}}}}}}'
        table = table.replace_schema_metadata({"huggingface": features})
    parquet.write_table(table, folder / "train.parquet", compression=compression, row_group_size=5)
    return folder / "train.parquet" if named else folder


def as_tree(tree: Tree, name: str = "d") -> Callable[[Path], Path]:
    write = write_zip if name.endswith(".zip") else write_tar if ".tar" in name else write_folder
    return lambda folder: write(folder / name, tree)


FORMATS = [*((kind, "RGB") for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF"))]
MODES = [("PNG", "P"), ("PNG", "LA"), ("PNG", "RGBA"), ("PNG", "1"), ("PNG", "I;16"), ("TIFF", "CMYK"), ("GIF", "P")]
EXAMPLES: list[Callable[[Path], Path]] = [
    *(as_tree(images(kind, mode)) for kind, mode in FORMATS + MODES),
    *(as_tree(class_tree({"cat": 3, "dog": 3}), name) for name in ("a.zip", "a.tar", "a.tar.gz")),
    *(as_tree(tiny_imagenet_tree(), name) for name in ("d", "tiny-imagenet-200.zip")),
    *(as_tree(cifar10_tree(2), name) for name in ("d", "a.tar", "cifar-10-python.tar.gz")),
    *(as_tree(cifar100_tree(2), name) for name in ("d", "a.zip")),
    *(lambda folder, packed=packed: write_svhn(folder / "svhn", 4, packed) for packed in (True, False)),
    *(lambda folder, save=save: write_npz(folder, save) for save in (np.savez, np.savez_compressed)),
    *(
        lambda folder, compression=compression, named=named: write_parquet(folder, compression, named)
        for compression in ("none", "snappy", "zstd")
        for named in (True, False)
    ),
]


# Damage


def flipped(rng: random.Random, content: bytearray, start: int, end: int) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        content[rng.randrange(start, end)] ^= 1 << rng.randrange(8)


def with_length(rng: random.Random, content: bytearray, start: int, end: int) -> None:
    """Another number where one may stand."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, rng.randrange(2**64), len(content)))
    place = rng.randrange(start, max(start + 1, end - size))
    content[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))


def cut(rng: random.Random, content: bytearray, start: int, end: int) -> None:
    del content[rng.randrange(start, end) :]


def removed(rng: random.Random, content: bytearray, start: int, end: int) -> None:
    place = rng.randrange(start, end)
    del content[place : place + rng.choice((1, 4, 16, 512))]


def inserted(rng: random.Random, content: bytearray, start: int, end: int) -> None:
    place = rng.randrange(start, end)
    content[place:place] = rng.choice((rng.randbytes, bytes))(rng.choice((1, 4, 100, 5000)))


def repeated(rng: random.Random, content: bytearray, start: int, end: int) -> None:
    place, size = rng.randrange(start, end), rng.choice((4, 64, 512, 4096))
    content[place:place] = content[place : place + size] * rng.choice((1, 2, 100))


def overwritten(rng: random.Random, content: bytearray, start: int, end: int) -> None:
    place, size = rng.randrange(start, end), rng.choice((1, 4, 32, 512))
    content[place : place + size] = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))


DAMAGES = (flipped, flipped, with_length, with_length, cut, removed, inserted, repeated, overwritten)


def damage(rng: random.Random, path: Path) -> None:
    """Damage a file: its head, its end (where zips and parquet files say what they hold), or anywhere."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not content:
            break
        size = len(content)
        ranges = (0, size), (0, min(size, 64)), (0, min(size, 600)), (max(0, size - 400), size)
        rng.choice(DAMAGES)(rng, content, *rng.choice(ranges))
    path.write_bytes(content)


def inside(rng: random.Random, folder: Path) -> Path:
    """A tree that is damaged first and packed then, so that the damage is behind whole checksums."""
    tree = rng.choice((cifar10_tree(2), cifar100_tree(2), tiny_imagenet_tree(), class_tree({"cat": 2, "dog": 2})))
    name = rng.choice(sorted(tree))
    scratch = folder / "scratch"
    scratch.write_bytes(tree[name])
    damage(rng, scratch)
    tree[name] = scratch.read_bytes()
    scratch.unlink()
    return as_tree(tree, rng.choice(("d", "a.zip", "a.tar", "a.tar.gz")))(folder)


def repacked(rng: random.Random, folder: Path) -> Path:
    """An .npz whose arrays are damaged behind whole checksums."""
    path = write_npz(folder, np.savez)
    with zipfile.ZipFile(path) as archive:
        tree = {name: archive.read(name) for name in archive.namelist()}
    name, scratch = rng.choice(sorted(tree)), folder / "scratch"
    scratch.write_bytes(tree[name])
    damage(rng, scratch)
    tree[name] = scratch.read_bytes()
    scratch.unlink()
    return write_zip(path, tree)


def damaged_input(seed: int, number: int, folder: Path) -> Path:
    """Write one damaged data set into an empty folder; what `--data` would name."""
    rng = random.Random(f"{seed} {number}")
    with patch("time.time", return_value=1e9), patch("time.asctime", return_value="now"):  # else in zip, gzip and .mat
        return _damaged(rng, folder)


def _damaged(rng: random.Random, folder: Path) -> Path:
    kind = rng.randrange(10)
    if kind < 2:
        return inside(rng, folder)
    if kind == 2:
        return repacked(rng, folder)
    given = rng.choice(EXAMPLES)(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    damage(rng, rng.choice(files))
    return given


# Reading


def try_input(path: Path) -> str | None:
    """Read data as `--data PATH` does, in this process: None if it is read or refused in one line, else the problem."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    problem = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            load(path)
        except InputError as error:
            if not str(error).isprintable():
                problem = f"not one line: {error}"
        except BaseException as error:
            problem = f"{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    if problem is None and warned:
        problem = f"warned: {warned[0].message}"
    if problem is None and time.monotonic() - began > SECONDS:
        problem = f"took {time.monotonic() - began:.0f} s"
    if problem is None and grown > MEBIBYTES:
        problem = f"took {grown:.0f} MiB"
    return problem


def _work(pipe: Connection) -> None:
    """Read what the other end names until it names nothing."""
    while path := pipe.recv():
        pipe.send(try_input(path))


class Worker:
    """A process that reads; one that crashes or hangs is noticed, ended and replaced."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_work, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def try_input(self, path: Path) -> str | None:
        """As the function, but crashes and hangs are told too."""
        self._pipe.send(path)
        problem: str | None = f"still reading after {2 * SECONDS:.0f} s"
        try:
            if self._pipe.poll(2 * SECONDS):
                return self._pipe.recv()
        except EOFError:
            self._process.join()
            problem = f"crashed: exit code {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        self._start()
        return problem

    def end(self) -> None:
        self._pipe.send(None)
        self._process.join()
