"""The demo that README shows, run as the Makefile runs it."""

import re
import shlex
from pathlib import Path

from commands import warmstart

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([\w\[\]=.-]+) +\| +(\S+) \((\S+)\) \| +(\S+) \((\S+)\) \|", re.MULTILINE)
"""Method, last accuracy with its standard deviation, last steps with theirs."""


def rows_of(text):
    return {name: [float(value) for value in values] for name, *values in ROW.findall(text)}


def test_the_demo_recommends_a_method_and_ends_as_readme_says_within_a_standard_deviation(tmp_path):
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    words = shlex.split(recipe.replace("\\\n", " "))
    assert words[:2] == ["$(BIN)/warmstart", "compare"]
    words[words.index("--out") + 1] = str(tmp_path / "out")

    assert warmstart(*words[1:]) == 0

    table, readme = (tmp_path / "out" / "table.md").read_text(), (ROOT / "README.md").read_text()
    assert re.search(r"^Use (?!cold)\S+: its last accuracy is \S+ points above cold's", table, re.MULTILINE)
    measured, said = rows_of(table), rows_of(readme)
    assert measured.keys() == said.keys()
    for method, (accuracy, std, steps, steps_std) in said.items():
        assert abs(measured[method][0] - accuracy) <= std, method
        assert abs(measured[method][2] - steps) <= steps_std, method
