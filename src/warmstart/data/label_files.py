"""Images that a file lists with their labels: a CSV (`path,label`), or `metadata.csv` and `metadata.jsonl` of the hub.

Paths are relative to the file. A column ``split``, or folders ``train`` and ``test`` at the start of all paths, says
which part an image is in; in a folder each part may have a list of its own.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.data.columns import IMAGE_NAMES, LABEL_NAMES, arrival_keys, choose, require_column
from warmstart.data.files import Files
from warmstart.data.folders import encoded_files
from warmstart.data.listing import Listing
from warmstart.data.train_and_test import index_labels, order_parts
from warmstart.decoding.bounds import MAX_KEYS, MAX_TEXT
from warmstart.decoding.decode import is_image
from warmstart.decoding.unreadable import reading
from warmstart.decoding.wanted import Wanted
from warmstart.errors import InputError
from warmstart.wording import counted

SUFFIXES = (".csv", ".tsv", ".jsonl")

_METADATA = ("metadata.csv", "metadata.jsonl")
_SPLIT = "split"


@dataclass(frozen=True)
class _Row:
    """A line of a list."""

    file: str
    line: int
    values: dict[str, str]

    @property
    def where(self) -> str:
        return f"{self.file} line {self.line}"


def find_lists(files: Files, wanted: Wanted) -> list[str]:
    """The lists of a data set: `metadata` at the top or in its parts, or else the one CSV at the top that names images.

    A folder of class folders may hold CSVs that are about something else.

    Returns:
        Their names; none where there is no such list.

    Raises:
        InputError: If several CSVs name images.
    """
    tops = [name for name in files.names if "/" not in name]
    inner = [name for name in files.names if name.count("/") == 1 and order_parts([_first(name)]) != (None, [])]
    for found in (tops, inner):
        metadata = {PurePosixPath(name).parent: name for name in found if PurePosixPath(name).name in _METADATA}
        if metadata:
            return list(metadata.values())
    lists = [name for name in tops if name.lower().endswith(SUFFIXES)]
    lists = [name for name in lists if _names_images(files, name, wanted, alone=len(lists) == 1)]
    if len(lists) > 1:
        raise InputError(f"{files.where}: {', '.join(lists)} all name images; give the path of the one to read")
    return lists


def _names_images(files: Files, name: str, wanted: Wanted, *, alone: bool) -> bool:
    try:
        first = next(_rows(files, name), None)
    except InputError:
        if alone:
            raise
        return False  # of several files it need not be a list at all
    return first is not None and (wanted.image_column in first.values or any(map(is_image, first.values.values())))


def list_rows(name: str, files: Files, lists: Sequence[str], wanted: Wanted) -> Listing:
    """List the images of one list, or of one for each part."""
    rows = [row for file in lists for row in _rows(files, file)]
    where = f"{files.where}/{lists[0]}" if len(lists) == 1 else files.where
    if not rows:
        raise InputError(f"{where}: no rows; name an image and its label in each")
    image, label = _chosen_columns(files, where, rows, wanted)
    paths = _paths(files, rows, image, skip=wanted.skip_unreadable)
    train, test, notes = _train_and_test(files, where, rows, paths, label)
    train_labels, test_labels = _labels(
        where, [[rows[index].values[label] for index in part] for part in (train, test)]
    )
    indices, test_indices, classes = index_labels(where, train_labels, test_labels if test else None)
    arrived = None
    if (order := wanted.order_column) is not None:
        require_column(where, order, rows[0].values.keys())
        arrived = arrival_keys(where, order, [rows[index].values[order] for index in train])
    if unlisted := set(filter(is_image, files.names)).difference(paths):
        notes.append(f"{where}: does not name {counted(len(unlisted), 'image')} such as {min(unlisted)}")
    chosen = [paths[index] for index in (*train, *test)]
    return Listing(
        name,
        files.where,
        indices,
        test_indices,
        classes,
        partial(encoded_files, files, chosen),
        lambda: files.sources(chosen),
        arrived,
        notes,
        chosen,
        f"list {', '.join(lists)}",
    )


def _chosen_columns(files: Files, where: str, rows: Sequence[_Row], wanted: Wanted) -> tuple[str, str]:
    """The columns of images and of labels; InputError if rows differ, or the columns cannot be told."""
    columns = rows[0].values.keys()
    if (differing := next((row for row in rows if row.values.keys() != columns), None)) is not None:
        raise InputError(f"{files.where}/{differing.where}: other columns than {rows[0].where}; make them alike")
    image = choose(where, "image", dict.fromkeys(columns), _image_columns(rows), IMAGE_NAMES, wanted.image_column)
    when = None if wanted.order_column in LABEL_NAMES else wanted.order_column
    others = [column for column in columns if column not in (image, _SPLIT, when)]
    holding = list(columns) if wanted.label_column else others
    return image, choose(where, "label", dict.fromkeys(columns), holding, LABEL_NAMES, wanted.label_column)


def _train_and_test(
    files: Files, where: str, rows: Sequence[_Row], paths: Sequence[str], label: str
) -> tuple[list[int], list[int], list[str]]:
    """The rows of the training part and of the test part, if one has labels, and notes on parts that are left out."""
    parts = _parts(where, rows, paths)
    train_name, test_names = order_parts(parts)
    if train_name is None:
        raise InputError(f"{where}: no row is of the part 'train', but {', '.join(parts)}; correct '{_SPLIT}'")
    for row in (rows[index] for index in parts[train_name]):
        if not row.values[label]:
            raise InputError(f"{files.where}/{row.where}: '{label}' is empty; fill it, or remove the row")
    test_name = next((part for part in test_names if all(rows[index].values[label] for index in parts[part])), None)
    left = [part for part in parts if part not in (train_name, test_name)]
    notes = [f"{where}: rows of '{part}' are not used" for part in left]
    return parts[train_name], [] if test_name is None else parts[test_name], notes


def _rows(files: Files, file: str) -> Iterator[_Row]:
    """The lines of a list, those of JSON with their values as text."""
    where = f"{files.where}/{file}"
    with reading(where, "save it in UTF-8"):
        text = files.read(file).decode("utf-8-sig")
    return _json_rows(where, file, text) if file.lower().endswith(".jsonl") else _csv_rows(where, file, text)


def _csv_rows(where: str, file: str, text: str) -> Iterator[_Row]:
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    with reading(where, "correct it"):
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header) or len(header) > MAX_KEYS or "" in header:
            raise InputError(f"{where}: its first line must name each column once, such as path,label")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                found = f"{len(values)} values for {len(header)} columns"
                raise InputError(f"{where} line {reader.line_num}: {found}; correct it")
            yield _Row(file, reader.line_num, dict(zip(header, map(str.strip, values), strict=True)))


def _json_rows(where: str, file: str, text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        with reading(f"{where} line {number}", "write one JSON object a line"):
            held: Any = json.loads(line)
            if not isinstance(held, dict) or len(held) > MAX_KEYS:
                raise ValueError("no JSON object")
        plain = {key: value for key, value in held.items() if not isinstance(value, (dict, list))}
        yield _Row(file, number, {key: "" if value is None else str(value) for key, value in plain.items()})


def _image_columns(rows: Sequence[_Row]) -> list[str]:
    return [column for column in rows[0].values if all(is_image(row.values[column]) for row in rows)] or [
        column for column in rows[0].values if column in IMAGE_NAMES
    ]


def _paths(files: Files, rows: Sequence[_Row], column: str, *, skip: bool) -> list[str]:
    """The path of each row's image; InputError if one is empty, named twice or, unless it may be skipped, not there."""
    seen: dict[str, _Row] = {}
    missing = []
    for row in rows:
        value = row.values[column]
        if not value:
            raise InputError(f"{files.where}/{row.where}: '{column}' is empty; fill it, or remove the row")
        path = (PurePosixPath(row.file).parent / value.replace("\\", "/")).as_posix()
        if (before := seen.get(path)) is not None:
            raise InputError(f"{files.where}/{row.where}: {value} is there already ({before.where}); remove one")
        seen[path] = row
        if not files.has(path):
            missing.append(row)
    if missing and not (skip and len(missing) < len(rows)):
        found = f"{len(missing)} of {len(rows)} images are not there, such as" if len(missing) > 1 else "there is no"
        row = missing[0]
        raise InputError(
            f"{files.where}/{row.where}: {found} {row.values[column]}; paths are relative to the list, correct or "
            "remove them, or give --skip-unreadable"
        )
    return list(seen)


def _parts(where: str, rows: Sequence[_Row], paths: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each part, by the column, or else by the first folder where all are in folders of parts."""
    if _SPLIT in rows[0].values:
        names = [row.values[_SPLIT] for row in rows]
    else:
        names = [_first(path) for path in paths]
        train, tests = order_parts(set(names))
        if train is None or len(tests) + 1 != len(set(names)):
            names = ["train"] * len(rows)
    parts: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if not name:
            raise InputError(f"{where}: '{_SPLIT}' is empty in line {rows[index].line}; fill it, or remove the row")
        parts.setdefault(name, []).append(index)
    return parts


def _first(path: str) -> str:
    return PurePosixPath(path).parts[0]


def _labels(where: str, parts: Sequence[Sequence[str]]) -> list[NDArray[Any]]:
    """Labels as whole numbers if all are such, else as texts."""
    every = [label for part in parts for label in part]
    if (long := next((label for label in every if len(label) > MAX_TEXT), None)) is not None:
        raise InputError(f"{where}: a label of {len(long)} characters; labels are names, of another --label-column")
    whole = all(re.fullmatch(r"[+-]?\d{1,18}", label) for label in every)
    return [np.array(part, dtype=np.int64 if whole else str) for part in parts]
