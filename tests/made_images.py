"""Images, folders and archives that the tests of the streams make."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from warmstart.data.images import ImageData

Tree = dict[str, bytes]


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image as a file's content."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(size: int, seed: int, mode: str = "RGB", width: int | None = None) -> Image.Image:
    """An image of random pixels."""
    shape = (size, width or size) + ((3,) if mode == "RGB" else ())
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def sixteen(top: int, *, kind: str = "PNG") -> bytes:
    """A grey image of 16 bits with values from 0 to ``top``."""
    values = np.linspace(0, top, 36).astype(np.uint16).reshape(6, 6)
    return encode(Image.fromarray(values), kind)


def class_tree(classes: dict[str, int], prefix: str = "", size: int = 6, mode: str = "RGB") -> Tree:
    """So many images of each class, in class folders."""
    return {
        f"{prefix}{label}/{i}.png": encode(noise(size, 100 * place + i, mode))
        for place, (label, count) in enumerate(classes.items())
        for i in range(count)
    }


def tiny_imagenet_tree() -> Tree:
    """Two classes in the layout of the official archive, whose order is not the alphabetical one."""
    tree: Tree = {"wnids.txt": b"n02\nn01\n", "words.txt": b"n01\tcat\nn02\tdog\n"}
    for wnid in ("n01", "n02"):
        tree[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t1\t1\n"
        for i in range(3):
            tree[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = encode(noise(8, i + (10 if wnid == "n02" else 0)), "JPEG")
    for i in range(2):
        tree[f"val/images/val_{i}.JPEG"] = encode(noise(8, 30 + i), "JPEG")
    tree["val/val_annotations.txt"] = b"val_0.JPEG\tn02\t0\t0\t5\t5\nval_1.JPEG\tn01\t0\t0\t5\t5\n"
    tree["test/images/test_0.JPEG"] = encode(noise(8, 40), "JPEG")
    return {f"tiny-imagenet-200/{name}": content for name, content in tree.items()}


def write_folder(path: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, tree: Tree) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in reversed(tree.items()):  # not in the order in which a folder is read
            archive.writestr(name, content)
    return path


def write_tar(path: Path, tree: Tree) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in reversed(tree.items()):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def same(a: ImageData, b: ImageData) -> bool:
    return a.fingerprint() == b.fingerprint()
