"""Which column of a table holds the images, which the labels, and when an example arrived."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from warmstart.errors import InputError, nearest

IMAGE_NAMES = ("image", "img", "file_name", "filename", "path", "file", "image_path", "filepath")
LABEL_NAMES = ("label", "fine_label", "class", "target")
"""Usual names, in the order of preference."""

_DAY_FIRST = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b.*")
_MONTH = re.compile(r"(\d{4})[-_]?(\d{2})(?:[-_]?(\d{2}))?")


def choose(
    where: str, kind: str, features: dict[str, Any], holding: list[str], usual: tuple[str, ...], named: str | None
) -> str:
    """The column that the user named, else the only one, else the one with a usual name."""
    if named is not None:
        require_column(where, named, features)
        if named not in holding:
            raise InputError(f"{where}: the column '{named}' holds no {kind}s; columns: {', '.join(features)}")
        return named
    if len(holding) == 1:
        return holding[0]
    for name in usual:
        if name in holding:
            return name
    which = "no column" if not holding else "more than one column"
    raise InputError(f"{where}: {which} holds {kind}s; name it with --{kind}-column (columns: {', '.join(features)})")


def require_column(where: str, named: str, columns: Iterable[str]) -> None:
    """Raise InputError unless there is a column of that name."""
    if named not in (known := list(columns)):
        raise InputError(f"{where}: there is no column '{named}'{nearest(named, known)}")


def arrival_keys(where: str, column: str, values: Sequence[Any]) -> tuple[str, ...]:
    """Times, numbers or texts as texts that sort in the same way.

    Times are ISO 8601's; those with a time zone are brought to UTC. Whole numbers are filled up with zeros where they
    are not of one length.

    Returns:
        One key for each value.

    Raises:
        InputError: About the first value that is missing, or cannot be put in order.
    """
    where = f"{where}: the column '{column}'"
    for row, value in enumerate(values):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise InputError(f"{where} is empty in row {row + 1}; fill it, or remove the row")
    if all(isinstance(value, date) for value in values):
        return _times(values)
    texts = tuple(str(value).strip() for value in values)
    if _are_all(where, "whole numbers", texts, [re.fullmatch(r"\d{1,18}", text) for text in texts]):
        longest = max(map(len, texts))
        return tuple(text.zfill(longest) for text in texts)
    times = [_time(text) for text in texts]
    if _are_all(where, "dates", texts, times):
        return _times([time for time in times if time is not None])
    if (wrong := next(filter(_DAY_FIRST.fullmatch, texts), None)) is not None:
        raise InputError(f"{where} holds '{wrong:.40}', which does not sort by time; write dates as 2026-06-30")
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return texts
    if sorted(range(len(texts)), key=texts.__getitem__) != sorted(range(len(texts)), key=numbers.__getitem__):
        raise InputError(f"{where} holds numbers such as '{texts[0]:.40}'; give whole numbers, or dates as 2026-06-30")
    return texts


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _are_all(where: str, kind: str, texts: Sequence[str], read: Sequence[Any]) -> bool:
    """Whether all texts are of a kind; InputError if most are, since the others would come out of order unseen."""
    missing = [row for row, value in enumerate(read) if value is None]
    if missing and 2 * len(missing) < len(read):
        row = missing[0]
        odd = f"'{texts[row]:.40}' in row {row + 1}"
        raise InputError(f"{where} holds {odd} among {kind}; correct it, or remove the row")
    return not missing


def _times(values: Sequence[date]) -> tuple[str, ...]:
    """Times in one form, that of UTC where they have a time zone; days where all are midnight."""
    times = [value if isinstance(value, datetime) else datetime(*value.timetuple()[:3]) for value in values]
    texts = [(time.astimezone(UTC) if time.tzinfo else time).isoformat(timespec="microseconds")[:26] for time in times]
    longest = next(end for end in (10, 19, 26) if all(set(text[end:]) <= set("T0:.") for text in texts))
    return tuple(text[:longest] for text in texts)


def months(names: Iterable[str]) -> dict[str, str]:
    """The month or day, as ``2026-06`` or ``2026-06-30``, of those of these names that are such."""
    found = {}
    for name in names:
        match = _MONTH.fullmatch(name)
        if match is None or not 1900 <= int(match[1]) <= 2100 or not 1 <= int(match[2]) <= 12:
            continue
        if match[3] is None or 1 <= int(match[3]) <= 31:
            found[name] = "-".join(part for part in match.groups() if part is not None)
    return found
