"""Keys of arrival sort as the times do; months are told from classes."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from warmstart.data.columns import arrival_keys, months
from warmstart.errors import InputError


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (["2026-06", "2025-11"], ("2026-06", "2025-11")),
        (["2026-06-30", "2026-07-01"], ("2026-06-30", "2026-07-01")),
        ([date(2026, 6, 30), date(2026, 7, 1)], ("2026-06-30", "2026-07-01")),
        (["2026-06-30 12:00:01", "2026-06-30T08:00:00"], ("2026-06-30T12:00:01", "2026-06-30T08:00:00")),
        (
            [datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 1, 1, tzinfo=UTC)],
            ("2025-12-31T23:00:00", "2026-01-01T00:00:00"),
        ),
        ([9, 10, 100], ("009", "010", "100")),
        (["202606", "202511"], ("202606", "202511")),
        ([1717230000.25, 1717230001.0], ("1717230000.25", "1717230001.0")),
        (["first", "second"], ("first", "second")),
    ],
)
def test_keys_sort_as_the_times_do(values: list[Any], keys: tuple[str, ...]) -> None:
    assert arrival_keys("t.csv", "day", values) == keys


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2026-06-30", ""], "t.csv: the column 'day' is empty in row 2"),
        ([1.5, float("nan")], "the column 'day' is empty in row 2"),
        (["30.06.2026", "01.07.2026"], "holds '30.06.2026', which does not sort by time; write dates as 2026-06-30"),
        (["6/30/2026", "7/1/2026"], "does not sort by time"),
        (["-1", "-2"], "holds numbers such as '-1'; give whole numbers"),
        (["9.5", "10.5"], "give whole numbers"),
    ],
)
def test_what_cannot_be_ordered_is_refused(values: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arrival_keys("t.csv", "day", values)


def test_months_and_days_are_known_in_every_usual_form() -> None:
    names = ["2026-06", "202607", "2026_08", "20260901", "2026-10-31"]
    found = months(names)
    assert list(found.values()) == ["2026-06", "2026-07", "2026-08", "2026-09-01", "2026-10-31"]
    for name in ("cat", "2026-13", "2026-00", "123456", "0"):
        assert months([name, "2026-06"]) == {"2026-06": "2026-06"}


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        (["1", "2", "x", "10"], "'x' in row 3 among whole numbers"),
        (["2026-06-01", "yesterday", "2026-06-03"], "'yester"),
    ],
)
def test_one_odd_value_among_numbers_or_dates_is_named(values: list[str], odd: str) -> None:
    with pytest.raises(InputError, match=odd):
        arrival_keys("list.csv", "taken", values)


def test_texts_that_are_mostly_neither_numbers_nor_dates_sort_as_texts() -> None:
    assert arrival_keys("list.csv", "batch", ["b", "a", "10", "2026-06-01"]) == ("b", "a", "10", "2026-06-01")
