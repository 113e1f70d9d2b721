import io

import pytest

from warmstart.evidence.table import Row, markdown, mean_std, terminal
from warmstart.reporting.terminal import Terminal
from warmstart.runs.metric import Metric

ROWS = [
    Row("cold", [0.6732, 0.6832], [5161, 5317], [0.5766, 0.5766], [2916, 2916]),
    Row("dash[alpha=0.1]", [0.8408], [6490], [0.7521], [3454]),
    Row("warm", [], [], [], []),
]


def test_mean_std_is_the_sample_deviation():
    assert mean_std([1, 2, 3], ".2f") == "2.00 (1.00)"
    assert mean_std([2.5], ".2f") == "2.50"
    assert mean_std([], ".2f") == "–"
    assert mean_std([1, 3], "+.1f") == "+2.0 (1.4)"


def test_markdown_shows_accuracy_in_percent_and_one_run_without_deviation():
    assert markdown(ROWS) == (
        "| method          | last accuracy % | last steps | mean accuracy % | mean steps |\n"
        "| --------------- | --------------: | ---------: | --------------: | ---------: |\n"
        "| cold            |    67.82 (0.71) | 5239 (110) |    57.66 (0.00) |   2916 (0) |\n"
        "| dash[alpha=0.1] |           84.08 |       6490 |           75.21 |       3454 |\n"
        "| warm            |               – |          – |               – |          – |\n"
    )


def test_other_metrics_keep_their_unit_and_uncounted_steps_are_left_out():
    text = markdown([Row("cold", [12.345], [0], [13.0], [0])], Metric("perplexity"))
    assert text.splitlines()[0].split("|")[2].strip() == "last perplexity"
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]] == ["cold", "12.35", "–", "13", "–"]


def test_a_bar_in_a_name_does_not_break_the_table():
    line = markdown([Row("a|b", [0.5], [1], [0.5], [1])]).splitlines()[2]
    assert line.startswith("| a\\|b ")


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_table_fits_and_shows_names_in_brackets(width):
    console = Terminal(width=width, record=True, file=io.StringIO())
    console.print(terminal([*ROWS, Row("shrink-perturb[variant=hare-tortoise]", [0.5], [9], [0.5], [9])]))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= 80
    assert any("dash[alpha=0.1]" in line for line in lines)
    assert any("[variant=hare-tortoise]" in line for line in lines)
