"""The docs hold what they promise: links resolve, commands parse, examples run, the API's page is up to date."""

import importlib.util
import re
import shlex
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from commands import SMALL, rows, warmstart
from warmstart.cli.app import make_app
from warmstart.methods.registry import methods, parse_method
from warmstart.runs.own_recipe import own_recipe
from warmstart.wording import split_names

ROOT = Path(__file__).parents[1]
RECIPES = sorted(page for page in (ROOT / "docs" / "recipes").glob("*.md") if page.name != "README.md")
FOLDERS = (ROOT / "docs", ROOT / "docs" / "recipes", ROOT / "docs" / "evidence")
PAGES = sorted(page for folder in (ROOT, *FOLDERS) for page in folder.glob("*.md"))
ALONE = ("--seeds", "1", "--jobs", "1")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STANDS_FOR_A_CLASS_OR_A_VARIABLE = (":", "$", "oracle")


def blocks(page, language):
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


def slugs(page):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page):
    """What follows `warmstart` in each command line of a page, in code blocks and in running text."""
    text = page.read_text()
    inline = [" ".join(code.split()) for code in re.findall(r"`(warmstart [a-z][^`]*)`", BLOCK.sub("", text))]
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    for line in [*inline, *lines]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        if "warmstart" in words[:-1] and "install" not in words:
            words = words[words.index("warmstart") + 1 :]
            end = next((i for i, word in enumerate(words) if word in ("&&", "||", "|", ";", "&", ">")), len(words))
            yield words[:end]


COMMANDS = [pytest.param(words, id=f"{page.name}: {' '.join(words)}") for page in PAGES for words in commands(page)]


@pytest.fixture(scope="module")
def app():
    return typer.main.get_command(make_app())


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_line_parses(app, words):
    command = app
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if not words:  # the command is only named
        return
    try:
        given = command.make_context("warmstart", list(words)).params  # an unknown flag or command raises
    except typer.Exit:
        return  # --help
    for name in split_names(given.get("methods") or ""):
        if not any(mark in name for mark in STANDS_FOR_A_CLASS_OR_A_VARIABLE):
            parse_method(own_recipe(name)[0])


def test_commands_are_found():
    assert len(COMMANDS) > 50
    found = [words for command in COMMANDS for words in command.values]
    assert ["retrain", "--data", "photos/", "--model", "small-cnn", "--state", "state/"] in found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text()).replace("\n", " ")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in slugs(there), target


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_index_names_every_page(folder):
    index = (folder / "README.md").read_text()
    for page in folder.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.name)
def test_every_block_of_a_recipe_is_part_of_its_script(page):
    file = ROOT / "examples" / "recipes" / f"{page.stem.replace('-', '_')}.py"
    shown = blocks(page, "python")
    assert shown
    if not file.exists():
        assert "**Not run here, page only**" in page.read_text()
        compile("\n".join(shown), page.name, "exec")
        return
    script = file.read_text()
    for block in shown:
        assert any(textwrap.indent(block, " " * indent) in script for indent in (0, 4, 8, 12)), block


def made_by(name):
    script = ROOT / "docs" / name
    spec = importlib.util.spec_from_file_location(script.stem, script)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_of_the_api_is_up_to_date():
    made = made_by("make_api.py")
    assert made.PAGE.read_text() == made.page(), "run: python docs/make_api.py"


def test_tables_of_methods_and_measures_are_up_to_date():
    pages = made_by("make_tables.py").pages()
    assert len(pages) == 3
    for path, text in pages.items():
        assert path.read_text() == text, "run: python docs/make_tables.py"


def test_the_readme_names_and_counts_all_methods():
    text = (ROOT / "README.md").read_text()
    assert set(methods()) - set(re.findall(r"`([a-z0-9-]+)`", text)) == {"warm"}  # which the others are beside
    assert f"**{len(methods())} methods**" in text


INTERVAL = re.compile(r"\((?:[^()]*[;,] )?([+-]?\d+\.(\d+)) to ([+-]?\d+\.\d+)\)")


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "evidence").glob("*.md")), ids=lambda page: page.stem)
def test_intervals_in_the_text_of_an_evidence_page_are_those_of_its_grids(page, monkeypatch):
    """Of a difference that is kept, or in a table, to as many digits; "below" turns its sign."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    made, grids_of = made_by("make_evidence.py"), made_by("kept_grids.py")
    text = page.read_text()
    named = {m["grid"] for m in made.BLOCK.finditer(text)} - {"all"}
    grids = named | {f"{grid}-given" for grid in named}
    facts = [grids_of.kept(grid)[1] for grid in grids if (page.parent / f"{grid}.json").exists()]
    estimates = [grids_of.as_estimate(one.get("estimate")) for of_grid in facts for one in of_grid["differences"]]
    kept = [100 * np.array(estimate.interval()) for estimate in estimates if estimate]
    tables, prose = (
        " ".join(line for line in BLOCK.sub("", text).splitlines() if line.startswith("|") == of_table)
        for of_table in (True, False)
    )
    kept += [np.array([float(low), float(high)]) for low, _, high in INTERVAL.findall(tables)]
    for low, digits, high in INTERVAL.findall(re.sub(r" +", " ", prose)):
        said = np.array([float(low), float(high)])
        off = [min(abs(one - said).max(), abs(-one[::-1] - said).max()) for one in kept]
        assert min(off, default=np.inf) <= 0.5001 * 10.0 ** -len(digits), f"{low} to {high}"


def test_pages_of_evidence_are_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    made = made_by("make_evidence.py")
    for page, text in made.pages().items():
        assert page.read_text() == text, "run: python docs/make_evidence.py"
    assert all(figure.exists() for figure in made.drawings())


@pytest.mark.parametrize("tuned", [(), ("--tune", "2")], ids=["plain", "tuned"])
def test_a_grid_that_was_begun_goes_on_from_what_is_kept_of_it(tmp_path, monkeypatch, tuned):
    begun = made_by("evidence/begun.py")
    monkeypatch.setattr(begun, "BEGUN", tmp_path / "begun")
    begin = ("compare", *SMALL, *tuned, "--methods", "cold,warm", "--jobs", "1", "--out")
    assert warmstart(*begin, tmp_path / "here" / "grid") == 0
    stopped = sorted((tmp_path / "here" / "grid" / "runs").rglob("*.safetensors"))[-1]
    stopped.unlink()
    begun.keep(tmp_path / "here")
    begun.restore(tmp_path / "there")
    kept = {file: file.read_bytes() for file in (tmp_path / "there").rglob("*.safetensors")}
    assert warmstart(*begin, tmp_path / "there" / "grid") == 0
    computed = {*(tmp_path / "there" / "grid" / "runs").rglob("*.safetensors")} - kept.keys()
    assert [file.parent.name for file in computed] == [stopped.parent.name]
    assert all(file.read_bytes() == content for file, content in kept.items())
    first, then = rows(tmp_path / "here" / "grid"), rows(tmp_path / "there" / "grid")
    for row in (*first, *then):
        del row["train_seconds"], row["method_seconds"]
    assert first == then


def test_the_methods_of_ones_own_are_compared(tmp_path, monkeypatch):
    own = ("mine:Prune[share=0.9]", "mine:Fade", "mine:Slow", "mine:Revive[every=2]")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("\n\n".join(blocks(ROOT / "docs" / "own-method.md", "python")))
    try:
        assert warmstart("compare", *SMALL, "--methods", ",".join(("cold", *own)), *ALONE) == 0
    finally:
        sys.modules.pop("mine", None)
    measured = rows(tmp_path / "out" / "compare")
    assert {row["method"] for row in measured} == {"cold", *own}
    # Only Prune waits for new data to differ from cold.
    first = {row["method"]: row["test_loss"] for row in measured if (row["seed"], row["stage"]) == ("0", "1")}
    assert first["mine:Prune[share=0.9]"] == first["cold"]
    assert len({first["cold"], first["mine:Fade"], first["mine:Slow"]}) == 3


@pytest.mark.parametrize(
    "make_schedule",
    [
        lambda o, **_: StepLR(o, 2, gamma=0.1),
        CosineAnnealingLR,
        lambda o, **_: OneCycleLR(o, 0.1, total_steps=40),
        lambda o, **_: SequentialLR(o, [LinearLR(o, 0.1, total_iters=3), CosineAnnealingLR(o, 10)], [3]),
        lambda o, **_: ChainedScheduler([ConstantLR(o, 0.1, total_iters=4), ExponentialLR(o, 0.9)]),
    ],
)
def test_a_schedule_made_anew_repeats_itself(make_schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    names = {"optimizer": optimizer, "CosineAnnealingLR": make_schedule}

    def rates(scheduler):
        for _ in range(8):
            yield optimizer.param_groups[0]["lr"]
            optimizer.step()
            scheduler.step()

    first = list(rates(make_schedule(optimizer, T_max=100)))
    (anew,) = [body for body in blocks(ROOT / "docs" / "dash.md", "python") if "initial_lr" in body]
    for _ in range(2):
        exec(anew, names)
        assert list(rates(names["scheduler"])) == pytest.approx(first)


def test_the_script_of_ones_own_task_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = next(body for body in blocks(ROOT / "docs" / "compare.md", "python") if "def train(" in body)
    shorter = script.replace("seeds=5", "seeds=1").replace("range(20)", "range(1)")
    exec(compile(shorter, "compare.md", "exec"), {})
    assert "squared error" in capsys.readouterr().out
    assert len(rows(tmp_path / "out" / "regression")) == 3 * 4


def test_the_file_of_settings_is_accepted(tmp_path):
    from warmstart.comparison.settings import CompareSettings
    from warmstart.settings import from_file_and_flags

    file = tmp_path / "study.yaml"
    file.write_text(blocks(ROOT / "docs" / "compare.md", "yaml")[0])
    assert from_file_and_flags(CompareSettings, file, {"seeds": 20}).seeds == 20


def test_the_columns_of_results_are_documented():
    from warmstart.runs.stage_result import COLUMNS

    table = (ROOT / "docs" / "compare.md").read_text().partition("The columns of `results.csv`")[2]
    documented = re.findall(
        r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if line[:2] == "| ")
    )
    assert sorted(documented) == sorted(COLUMNS)
