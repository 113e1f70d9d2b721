"""MD5 checksums of the files that the paper's data sets are downloaded as.

They are those that torchvision checks, and the commonly published one of Tiny-ImageNet's archive.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from warmstart.data.svhn import SVHN_FILES
from warmstart.decoding.bounds import require_regular
from warmstart.decoding.unreadable import in_one_line, reading
from warmstart.errors import InputError

_MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de",
}


@in_one_line()
def verify_official(path: Path) -> None:
    """Raise InputError if a file with an official name has another checksum; other names are not checked."""
    with reading(str(path)):
        files = _files(path)
    for file in files:
        expected = _MD5.get(file.name) or _MD5.get(f"{file.resolve().parent.name}/{file.name}")
        if expected is None:
            continue
        found = _md5(file)
        if found != expected:
            raise InputError(
                f"{file}: its md5 is {found}, but that of the official file is {expected}: it is truncated, damaged "
                "or a different file; download it again, or give --no-verify if it is meant to differ"
            )


def _files(path: Path) -> list[Path]:
    """A folder's files, both files of SVHN where one is named, or the archive alone."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if path.name in SVHN_FILES:
        return [file for file in (path.with_name(name) for name in SVHN_FILES) if file.is_file()]
    return [path]


def _md5(path: Path) -> str:
    require_regular(path)
    with reading(str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
