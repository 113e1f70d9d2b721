"""The site: all pages are in it and in its navigation, scripts and notebooks become pages, and the FAQ is short."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture
def running_site(tmp_path, monkeypatch):
    """The script that lays out the pages, into a folder of the test's own."""
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "docs" / "make_site.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    monkeypatch.setattr(made, "LAID_OUT", tmp_path / "pages")
    return made


@pytest.fixture
def site(running_site, monkeypatch):
    """The same, but notebooks are shown as they are stored; `make docs` runs them."""
    monkeypatch.setattr(running_site, "_executed", lambda path: nbformat.read(ROOT / path, as_version=4))
    return running_site


def code_cells(notebook):
    return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def in_navigation(entry):
    if isinstance(entry, str):
        return {entry}
    return set().union(*map(in_navigation, entry.values() if isinstance(entry, dict) else entry))


def test_every_page_is_in_the_site_and_its_navigation(site, tmp_path):
    site.lay_out()
    *_, navigation = (tmp_path / "mkdocs.yml").read_text().partition("\nnav:\n")
    named = in_navigation(yaml.safe_load(navigation))
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert len(pages) > 15
    pages |= {f"docs/notebooks/{notebook.name}.md" for notebook in NOTEBOOKS}
    assert pages | {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= named
    assert all((tmp_path / "pages" / page).exists() for page in named)


def test_a_link_that_names_a_file_is_shown_with_its_title(site, tmp_path):
    site.lay_out()
    index = (tmp_path / "pages" / "docs" / "README.md").read_text()
    assert "[Comparing methods](compare.md)" in index
    assert "[compare.md]" not in index


def test_a_link_to_a_script_leads_to_a_page_that_shows_it(site, tmp_path):
    site.lay_out()
    assert "(../examples/fsdp2.py.md)" in (tmp_path / "pages" / "docs" / "integrations.md").read_text()
    shown = (tmp_path / "pages" / "examples" / "fsdp2.py.md").read_text()
    assert (ROOT / "examples" / "fsdp2.py").read_text() in shown


def test_a_link_to_a_notebook_leads_to_its_page_and_that_to_the_notebook(site, tmp_path):
    site.lay_out()
    folder = tmp_path / "pages" / "docs"
    assert "(notebooks/your-own-loop.ipynb.md)" in (folder / "README.md").read_text()
    page = (folder / "notebooks" / "comparison.ipynb.md").read_text()
    assert "(your-own-loop.ipynb.md)" in page
    assert page.splitlines()[2].endswith("[comparison.ipynb](comparison.ipynb).*")
    assert (folder / "notebooks" / "comparison.ipynb").read_text() == NOTEBOOKS[0].read_text()


def test_a_page_shows_what_a_notebook_prints_and_draws(running_site, tmp_path, monkeypatch):
    monkeypatch.setattr(running_site, "ROOT", tmp_path)
    drawing = "from pathlib import Path\nfrom matplotlib import pyplot\n\npyplot.plot([1, 2])\nPath('kept').touch()"
    cells = [
        nbformat.v4.new_markdown_cell("# Sums\n\n[A script](sums.py)"),
        nbformat.v4.new_code_cell("print(20 + 3)\n'a' * 4"),
        nbformat.v4.new_code_cell(drawing, metadata={"alt": "A rising line"}),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "sums.ipynb")
    folder = tmp_path / "site"
    folder.mkdir()
    running_site._show_notebook(running_site._executed("sums.ipynb"), folder / "sums.ipynb")
    page = (folder / "sums.ipynb.md").read_text()
    assert page.startswith("# Sums\n\n*A notebook, run as this site was built: [sums.ipynb](sums.ipynb).*\n")
    assert "[A script](sums.py.md)" in page
    assert "``` { .text .output .stdout }\n23\n```" in page
    assert "``` { .text .output .value }\n'aaaa'\n```" in page
    (figure,) = folder.glob("*.svg")
    assert f"![A rising line]({figure.name})" in page
    assert not list(tmp_path.rglob("kept"))  # what it writes goes with its folder


def test_a_cell_that_fails_ends_the_build(running_site, tmp_path, monkeypatch):
    monkeypatch.setattr(running_site, "ROOT", tmp_path)
    failing = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(failing, tmp_path / "failing.ipynb")
    with pytest.raises(SystemExit, match=r"failing\.ipynb failed\n(.|\n)*ZeroDivisionError"):
        running_site._executed("failing.ipynb")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_stored_as_it_was_written(notebook):
    cells = code_cells(notebook)
    assert len(cells) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    drawing = [cell for cell in cells if "subplots(" in cell.source or "report.figure(" in cell.source]
    assert drawing
    assert all(len(cell.metadata.get("alt", "")) > 20 for cell in drawing), "say what is to be seen, in alt"


def test_a_link_to_a_folder_is_refused(site, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("[scripts](examples)")
    (tmp_path / "examples").mkdir()
    monkeypatch.setattr(site, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"README\.md links to examples, which is no file"):
        site.lay_out()


def test_each_answer_is_short_and_links_to_what_proves_it():
    _, *questions = re.split(r"^## ", (ROOT / "docs" / "faq.md").read_text(), flags=re.MULTILINE)
    assert len(questions) >= 12
    for question in questions:
        answer = question.partition("\n")[2].strip()
        assert len(answer.splitlines()) <= 3, question
        assert re.search(r"\]\([\w./-]+\.md", answer), question
