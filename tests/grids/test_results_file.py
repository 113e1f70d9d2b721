import csv
from dataclasses import replace

import pytest

from made_up import PAPER, make_results
from warmstart.grids.results_file import write_results
from warmstart.runs.stage_result import COLUMNS, to_csv
from warmstart.wording import one_line


def written(file, **changes):
    row = replace(make_results(PAPER).rows[0], **changes)
    write_results(file, [row])
    with file.open(newline="", encoding="utf-8") as lines:
        (found,) = csv.DictReader(lines)
    assert tuple(found) == COLUMNS
    return row, found


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_name_is_a_formula(tmp_path, name):
    row, found = written(tmp_path / "results.csv", data=name, method=name, test_loss=-1.0)
    assert found["data"] == found["method"] == f"'{one_line(name)}"
    assert found["test_loss"] == "-1.0"  # a number stays one
    assert found["model"] == row.model


@pytest.mark.parametrize("name", ["digits", "dash[alpha=0.1]", "pkg.module:Halve", "a-b=c", "'quoted'", "", 'ä,"'])
def test_other_names_stay_as_they_are(tmp_path, name):
    row, found = written(tmp_path / "results.csv", data=name)
    assert found["data"] == name
    assert (tmp_path / "results.csv").read_bytes() == to_csv([row]).encode()


def test_a_name_that_is_no_utf_8_or_has_line_ends_does_not_lose_the_work(tmp_path):
    assert written(tmp_path / "results.csv", data="a\udcff\rb\nc")[1]["data"] == r"a\udcff b c"
