"""Images in tables: local parquet files, and data sets of the Hugging Face hub through `datasets`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.data.columns import IMAGE_NAMES, LABEL_NAMES, arrival_keys, choose, require_column
from warmstart.data.files import stamp
from warmstart.data.images import ImageData
from warmstart.data.listing import Listing
from warmstart.data.train_and_test import index_labels, order_parts
from warmstart.decoding.bounds import MAX_CLASSES, MAX_TEXT, read_file, require_regular, require_unpackable
from warmstart.decoding.decode import Encoded
from warmstart.decoding.unreadable import reading, unreadable
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError

_ROWS = 512  # rows held in memory at a time, encoded
_AT_ONCE = 32


@dataclass(frozen=True)
class _Split:
    """One part of a table, read in pieces."""

    name: str
    features: dict[str, Any]
    rows: int
    packed: int
    """Bytes in its files."""
    read: Callable[[str], Iterator[Any]]
    """The values of one column."""
    sources: Sequence[object]
    """What tells whether it has changed."""


def parquet_files(path: Path) -> list[Path]:
    """The parquet files that a path names: itself, or those at any depth of a folder, sorted, without hidden ones."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    with reading(str(path)):
        found = sorted(path.rglob("*.parquet"))
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def list_parquet(
    path: Path,
    wanted: Wanted,
) -> Listing:
    """List a parquet file, or a folder of them with the parts in their names, as on the hub; no cache is written."""
    splits = [_local_split(name, files) for name, files in _parquet_parts(path).items()]
    name = path.stem if path.is_file() else path.resolve().name
    return _list_splits(name, str(path), splits, wanted)


def read_hub(
    name: str,
    wanted: Wanted,
) -> ImageData:
    """Read ``NAME`` or ``NAME:CONFIG`` of the hub, from `datasets`' own cache where it was downloaded before."""
    import datasets

    repository, _, config = name.partition(":")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", repository):
        raise InputError(f"hf:{name}: no name of a data set; write hf:NAME or hf:NAME:CONFIG, as hf:uoft-cs/cifar10")
    _check_hub(repository)
    try:
        found = datasets.load_dataset(repository, config or None)
    except ValueError as error:  # no configuration named, or one that is not there: the message lists them
        listing = " ".join(str(error).partition("Example of usage")[0].split())
        raise InputError(f"hf:{name}: {listing}; write hf:NAME:CONFIG") from error
    except Exception as error:  # of libraries of every kind, as the data set has it
        raise InputError(unreadable(f"hf:{name}", error, "go online, or choose another data set")) from error
    splits = [_hub_split(split, table) for split, table in found.items()]
    return _list_splits(name, f"hf:{name}", splits, wanted).read(wanted)


def _check_hub(repository: str) -> None:
    """Raise InputError unless the hub has the data set: `datasets` would first retry for half a minute, noisily."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    if HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(repository, timeout=10)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"hf:{repository}: no such data set on the hub, or it is private; check the name, or log in"
        ) from error
    except HfHubHTTPError:
        return  # the hub answers: loading says more
    except Exception as error:  # from requests, httpx or httpx2, as the version of huggingface_hub has it
        raise InputError(
            f"hf:{repository}: the hub ({ENDPOINT}) cannot be reached; go online, or set HF_HUB_OFFLINE=1 to use "
            "a data set that was downloaded before"
        ) from error


def _hub_split(name: str, table: Any) -> _Split:
    def read(column: str) -> Iterator[Any]:
        with reading(name):
            for batch in table.select_columns([column]).with_format("arrow").iter(batch_size=_ROWS):
                yield from _python(batch[column])

    return _Split(name, dict(table.features), table.num_rows, table.data.nbytes, read, [table._fingerprint])


def _python(values: Any) -> Iterator[Any]:
    """The values of an Arrow array, few at a time: those of a dictionary take no memory there, but each does here."""
    for start in range(0, len(values), _AT_ONCE):
        yield from values[start : start + _AT_ONCE].to_pylist()


def _parquet_parts(path: Path) -> dict[str, list[Path]]:
    """The files of each part: ``train-00000-of-00002.parquet``, ``data/test-...``, ``valid/0000.parquet``."""
    if path.is_file():
        return {"train": [path]}
    parts: dict[str, list[Path]] = {}
    for file in parquet_files(path):
        relative = file.relative_to(path).with_suffix("")
        train, tests = order_parts(re.split(r"[^a-z]+", str(relative).lower()))
        parts.setdefault(train or (tests[0] if tests else ""), []).append(file)
    unnamed = parts.pop("", [])
    if order_parts(parts)[0] is None and unnamed:
        parts["train"] = unnamed  # else they are something beside the parts, as SVHN's `extra`
    return parts


def _local_split(name: str, files: Sequence[Path]) -> _Split:
    from pyarrow import parquet

    sizes, rows, schemas = {}, {}, {}
    for file in files:
        sizes[file] = require_regular(file)
        with reading(str(file), "replace it"):
            opened = parquet.ParquetFile(file)
            groups = [opened.metadata.row_group(index) for index in range(opened.num_row_groups)]
            rows[file] = sum(group.num_rows for group in groups)
            unpacked = sum(group.total_byte_size for group in groups)
            require_unpackable(str(file), unpacked, sizes[file], rows[file])
            schemas[file] = _features(opened.schema_arrow)
    features = schemas[files[0]]
    differing = [file for file in files if schemas[file] != features]
    if differing:
        raise InputError(
            f"{differing[0]} has other columns than {files[0]}; give a folder that holds one data set only"
        )

    def read(column: str) -> Iterator[Any]:
        for file in files:
            left = rows[file]
            with reading(str(file), "replace it"):
                for batch in parquet.ParquetFile(file).iter_batches(_ROWS, columns=[column]):
                    values = batch.column(0)
                    left -= len(values)
                    if left < 0:
                        break
                    yield from _python(values)
                if left:
                    raise ValueError(f"other than the {rows[file]} rows it says it has")

    return _Split(name, features, sum(rows.values()), sum(sizes.values()), read, [stamp(file) for file in files])


def _features(schema: Any) -> dict[str, Any]:
    """The columns of a file and their types, as `datasets` wrote them into it or else as Arrow has them."""
    import datasets

    def check(read: dict[str, Any]) -> None:
        if isinstance(count := read.get("num_classes"), int) and count > MAX_CLASSES:
            raise ValueError(f"{count} classes")  # for each of which `datasets` would make a name

    json.loads((schema.metadata or {}).get(b"huggingface", b"{}"), object_hook=check)
    return dict(datasets.Features.from_arrow_schema(schema))


def _list_splits(
    name: str,
    where: str,
    splits: Sequence[_Split],
    wanted: Wanted,
) -> Listing:
    by_name = {split.name: split for split in splits}
    train_name, test_names = order_parts(by_name)
    if train_name is None:
        held = ", ".join(by_name) or "none"
        raise InputError(f"{where}: there is no part 'train'; it has {held}")
    train = by_name[train_name]
    if train.rows == 0:
        raise InputError(f"{where}: the part '{train_name}' has no rows; add examples")
    image = _image_column(where, train.features, wanted.image_column)
    label = _label_column(where, train.features, wanted.label_column)
    train_labels = _labels(train, label)
    if _unlabelled(train_labels):
        raise InputError(f"{where}: {train.name} has rows without a '{label}'; remove them")

    test, test_labels = None, None
    for candidate in (by_name[test_name] for test_name in test_names):
        if candidate.rows == 0 or not {image, label} <= candidate.features.keys():
            continue
        for column in (image, label):
            if candidate.features[column] != train.features[column]:
                raise InputError(f"{where}: '{column}' differs in type between {train_name} and {candidate.name}")
        found = _labels(candidate, label)
        if not _unlabelled(found):
            test, test_labels = candidate, found
            break

    arrived = None
    if (order := wanted.order_column) is not None:
        require_column(where, order, train.features)
        arrived = arrival_keys(where, order, list(train.read(order)))
    names = getattr(train.features[label], "names", None)
    indices, test_indices, classes = index_labels(where, train_labels, test_labels, names)
    parts = [train] if test is None else [train, test]
    return Listing(
        name,
        where,
        indices,
        test_indices,
        classes,
        partial(_encoded, where, parts, image),
        lambda: (image, *(part.sources for part in parts)),
        arrived,
    )


def _image_column(where: str, features: dict[str, Any], named: str | None) -> str:
    holding = [column for column, feature in features.items() if _holds_images(feature)]
    return choose(where, "image", features, holding, IMAGE_NAMES, named)


def _label_column(where: str, features: dict[str, Any], named: str | None) -> str:
    holding = [column for column, feature in features.items() if hasattr(feature, "names")]
    if not holding or named or not set(LABEL_NAMES).isdisjoint(features):
        holding += [column for column, feature in features.items() if _is_category(feature)]
    return choose(where, "label", features, holding, LABEL_NAMES, named)


def _holds_images(feature: Any) -> bool:
    """Whether a column holds images as `datasets` writes them, or the bytes of files as other tools do."""
    is_bytes = getattr(feature, "dtype", None) in {"binary", "large_binary"}
    return type(feature).__name__ == "Image" or is_bytes or (isinstance(feature, dict) and "bytes" in feature)


def _is_category(feature: Any) -> bool:
    """Whether a column holds integers, strings or booleans."""
    dtype = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and re.fullmatch(r"bool|u?int\d+|(large_)?string", dtype) is not None


def _labels(split: _Split, column: str) -> NDArray[Any]:
    values = list(split.read(column))
    for value in values:
        if not isinstance(value, (int, str, NoneType)) or (isinstance(value, str) and len(value) > MAX_TEXT):
            found = f"a text of {len(value)} characters" if isinstance(value, str) else f"a {type(value).__name__}"
            raise InputError(
                f"{split.name}: '{column}' holds {found}; labels are integers or names, of another --label-column"
            )
    return np.array(values, dtype=object if None in values else None)


def _unlabelled(labels: NDArray[Any]) -> bool:
    """Whether labels are missing; hidden ones are all -1 on the hub."""
    return labels.dtype == object or (labels.dtype.kind == "i" and bool((labels == -1).all()))


def _encoded(where: str, parts: Sequence[_Split], column: str) -> Iterator[Encoded]:
    index = 0
    for part in parts:
        unpacked = 0
        for row, value in enumerate(part.read(column)):
            content = value.get("bytes") if isinstance(value, dict) else value
            unpacked += len(content) if isinstance(content, bytes) else 0
            require_unpackable(where, unpacked, part.packed)
            name = f"{where}: row {row} of {part.name}"
            yield index, name, partial(_content, value, name)
            index += 1


def _content(value: Any, name: str) -> bytes:
    if isinstance(value, dict):
        path = value.get("path")
        value = value.get("bytes")
        if value is None and isinstance(path, str) and os.path.isfile(path):  # so `datasets` keeps folders of images
            return read_file(Path(path))
    if not isinstance(value, bytes):
        raise InputError(f"{name}: there is no image; remove the row")
    return value
