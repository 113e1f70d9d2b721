import io

import pytest
from rich.table import Table
from rich.text import Text

from warmstart.reporting.terminal import Terminal

ODD = "a\x1b[31mb\x9b2Jc\u202ed\re\nf\x07\udcff"


def shown(*objects, **options):
    file = io.StringIO()
    Terminal(file=file, width=200, **options).print(*objects)
    return file.getvalue()


def test_a_message_is_one_line_without_control_characters():
    assert shown(f"data: {ODD}") == "data: a\\x1b[31mb\\x9b2Jc\\u202ed e f\\x07\\udcff\n"


def test_markup_and_emoji_codes_are_text():
    assert shown("[red]x[/red] dash[alpha=0.1] :smile: 12") == "[red]x[/red] dash[alpha=0.1] :smile: 12\n"


@pytest.mark.parametrize("cell", [ODD, Text(ODD)], ids=["text", "Text"])
def test_a_table_has_no_control_characters_either(cell):
    table = Table("head", title=ODD, caption=ODD)
    table.add_row(cell)
    lines = shown(table, Text(ODD)).splitlines()
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b[31mb" in line for line in lines)


def test_colours_are_ours_on_a_terminal():
    text = shown(ODD, force_terminal=True, color_system="standard", style="red")
    assert text.startswith("\x1b[31m")
    assert text.count("\x1b") == 2


def test_a_long_path_stays_one_line(tmp_path):
    file = io.StringIO()
    Terminal(file=file, width=20).print_path("page", tmp_path / ("x" * 100))
    assert file.getvalue() == f"page: {tmp_path / ('x' * 100)}\n"


def test_in_a_notebook_too_it_writes_text_to_its_file(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert shown("data: digits") == "data: digits\n"


def test_nothing_is_lost_when_nobody_reads_any_more():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    terminal = Terminal(file=Closed())
    terminal.print("one")
    terminal.print("two")
