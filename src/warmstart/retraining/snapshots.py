"""What has arrived, as it was decoded: one file a stage, written once, in which examples are known by their content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from warmstart.errors import InputError
from warmstart.storage.atomic import write_bytes

DIGEST = 16
"""Bytes of an example's digest."""
FOLDS = 5
"""One in so many examples is held out."""
_RESTORE = "restore it from a backup, or begin with another --state"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Labelled images in the order of their arrival."""

    images: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor
    """int64 (N,), indices into the state's classes."""
    digests: Tensor
    """uint8 (N, 16): of pixels and class."""
    pixels: Tensor
    """uint8 (N, 16): digests of the pixels alone."""
    held_out: Tensor
    """bool (N,): which are in the held-out fifth, for ever and whatever else arrives."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, index: Tensor) -> Snapshot:
        """The examples at these positions, or where this is true."""
        return Snapshot(*(tensor[index] for tensor in vars(self).values()))

    def known(self) -> list[bytes]:
        """The digests."""
        return split_rows(self.digests)


def digest(image: Tensor, label: str) -> bytes:
    """16 bytes that an image, uint8 (C, H, W), and its class have in common with their copies alone."""
    told = hashlib.sha256(f"{label}\0{tuple(image.shape)}\0".encode(errors="surrogateescape"))
    told.update(image.contiguous().numpy().data)
    return told.digest()[:DIGEST]


def pixel_digest(image: Tensor) -> bytes:
    """16 bytes that an image, uint8 (C, H, W), has in common with its copies of any class alone."""
    told = hashlib.sha256(f"{tuple(image.shape)}\0".encode())
    told.update(image.contiguous().numpy().data)
    return told.digest()[:DIGEST]


def in_fifth(digests: Tensor) -> Tensor:
    """Tell which digests, uint8 (N, 16), are of the held-out fifth: bool (N,)."""
    first = digests[:, :4].long()
    number = first[:, 0] << 24 | first[:, 1] << 16 | first[:, 2] << 8 | first[:, 3]
    return number % FOLDS == 0


def taken(images: Tensor, labels: Tensor, digests: Sequence[bytes], sides: Mapping[bytes, bool]) -> Snapshot:
    """Examples as they arrive.

    Their pixels decide which are held out, so that no copy leaks from one side to the other, of whatever class; those
    that have arrived before stay on their side.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), indices into the state's classes.
        digests: Of pixels and class.
        sides: Digests of pixels that have arrived before -> whether they are held out.

    Returns:
        The snapshot.
    """
    pixels = to_tensor(own := [pixel_digest(image) for image in images])
    sided = [sides.get(one, held_out) for one, held_out in zip(own, in_fifth(pixels).tolist(), strict=True)]
    return Snapshot(images, labels, to_tensor(digests), pixels, torch.tensor(sided, dtype=torch.bool))


def to_tensor(digests: Sequence[bytes]) -> Tensor:
    """Digests as uint8 (N, 16)."""
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, DIGEST)


def split(digests: bytes) -> list[bytes]:
    """Digests one by one."""
    return [digests[start : start + DIGEST] for start in range(0, len(digests), DIGEST)]


def split_rows(digests: Tensor) -> list[bytes]:
    """Digests, uint8 (N, 16), one by one."""
    return split(digests.numpy().tobytes())


def joined(parts: Iterable[Snapshot]) -> Snapshot:
    """Several as one."""
    return Snapshot(*(torch.cat(tensors) for tensors in zip(*(vars(part).values() for part in parts), strict=True)))


def write(file: Path, snapshot: Snapshot) -> str:
    """Write a snapshot, or leave nothing behind; its SHA-256."""
    content = to_safetensors({name: tensor.contiguous() for name, tensor in vars(snapshot).items()}, {"format": "pt"})
    file.parent.mkdir(exist_ok=True)
    write_bytes(file, content)
    return hashlib.sha256(content).hexdigest()


def read(file: Path, sha256: str) -> Snapshot:
    """Read a snapshot; InputError unless it is what was written."""
    found = from_safetensors(checked(file, sha256))
    return Snapshot(**{**found, **_by_pixels(found)})


def _by_pixels(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file says of pixels and sides; the first versions' files do not, and held out by pixels and class."""
    if "pixels" in found:
        return {name: found[name] for name in ("pixels", "held_out")}
    pixels = to_tensor([pixel_digest(image) for image in found["images"]])
    return {"pixels": pixels, "held_out": in_fifth(found["digests"])}


def checked(file: Path, sha256: str) -> bytes:
    """The content of a file; InputError if it is missing or is not what was written."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{file}: missing; {_RESTORE}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{file}: damaged (its SHA-256 has changed); {_RESTORE}")
    return content


def name_of_test(sha256: str) -> str:
    """The name of a test set's file."""
    return f"test-{sha256}.safetensors"


def sha256_of_test(name: str) -> str:
    """The SHA-256 in the name of a test set's file."""
    return name.removeprefix("test-").removesuffix(".safetensors")


def known_examples(files: Mapping[int, Path], withdrawn: Mapping[bytes, int]) -> Counter[bytes]:
    """How often each example has arrived, of these stages' snapshots, and was not withdrawn at a later stage."""
    digests = (
        (stage, one) for stage, file in files.items() for one in split_rows(_tensors(file, "digests")["digests"])
    )
    return Counter(one for stage, one in digests if withdrawn.get(one, 0) <= stage)


class Known(NamedTuple):
    """An example that has arrived."""

    digest: bytes
    pixels: bytes
    held_out: bool


def known(files: Iterable[Path]) -> Iterator[Known]:
    """All examples of these snapshots, in their order; images are read only where a file does not say their pixels."""
    for file in files:
        found = _tensors(file, "digests", "pixels", "held_out") or _tensors(file, "images", "digests")
        found |= _by_pixels(found)
        digests, pixels = split_rows(found["digests"]), split_rows(found["pixels"])
        yield from map(Known, digests, pixels, found["held_out"].tolist())


def _tensors(file: Path, *names: str) -> dict[str, Tensor]:
    """These tensors of a snapshot; none if it does not have them."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in names} if {*names} <= {*opened.keys()} else {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read ({error}); {_RESTORE}") from error
