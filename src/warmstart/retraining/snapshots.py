"""What has arrived, as it was decoded: one file a stage, written once, in which examples are known by their content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """uint8 (N, 16)."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, index: Tensor) -> Snapshot:
        """The examples at these positions, or where this is true."""
        return Snapshot(self.images[index], self.labels[index], self.digests[index])

    def held_out(self) -> Tensor:
        """Tell which examples are in the held-out fifth, for ever and whatever else arrives: their content decides it.

        Examples of the same content are on the same side, so that none leaks.

        Returns:
            bool (N,).
        """
        first = self.digests[:, :4].long()
        number = first[:, 0] << 24 | first[:, 1] << 16 | first[:, 2] << 8 | first[:, 3]
        return number % FOLDS == 0

    def known(self) -> list[bytes]:
        """The digests."""
        return split(self.digests.numpy().tobytes())


def digest(image: Tensor, label: str) -> bytes:
    """16 bytes that an image, uint8 (C, H, W), and its class have in common with their copies alone."""
    told = hashlib.sha256(f"{label}\0{tuple(image.shape)}\0".encode(errors="surrogateescape"))
    told.update(image.contiguous().numpy().data)
    return told.digest()[:DIGEST]


def to_tensor(digests: Sequence[bytes]) -> Tensor:
    """Digests as uint8 (N, 16)."""
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, DIGEST)


def split(digests: bytes) -> list[bytes]:
    """Digests one by one."""
    return [digests[start : start + DIGEST] for start in range(0, len(digests), DIGEST)]


def joined(parts: Iterable[Snapshot]) -> Snapshot:
    """Several as one."""
    every = list(parts)
    return Snapshot(*(torch.cat([getattr(part, name) for part in every]) for name in ("images", "labels", "digests")))


def write(file: Path, snapshot: Snapshot) -> str:
    """Write a snapshot, or leave nothing behind; its SHA-256."""
    content = to_safetensors({name: tensor.contiguous() for name, tensor in vars(snapshot).items()}, {"format": "pt"})
    file.parent.mkdir(exist_ok=True)
    write_bytes(file, content)
    return hashlib.sha256(content).hexdigest()


def read(file: Path, sha256: str) -> Snapshot:
    """Read a snapshot; InputError unless it is what was written."""
    return Snapshot(**from_safetensors(checked(file, sha256)))


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


def known_examples(files: Iterable[Path]) -> Counter[bytes]:
    """How often each example has arrived, of these snapshots; their images are not read."""
    return Counter(one for file in files for one in _digests(file))


def _digests(file: Path) -> Iterator[bytes]:
    try:
        with safe_open(file, framework="pt") as opened:
            found: Tensor = opened.get_tensor("digests")
            yield from split(found.numpy().tobytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read ({error}); {_RESTORE}") from error
