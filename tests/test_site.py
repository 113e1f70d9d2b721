"""The site: every page is in it and in its navigation, links to scripts lead to pages, and the FAQ is short."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The script that lays out the pages, into a folder of the test's own."""
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "docs" / "make_site.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    monkeypatch.setattr(made, "LAID_OUT", tmp_path / "pages")
    return made


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
    assert pages | {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= named
    assert all((tmp_path / "pages" / page).exists() for page in named)


def test_a_link_to_a_script_leads_to_a_page_that_shows_it(site, tmp_path):
    site.lay_out()
    assert "(../examples/fsdp2.py.md)" in (tmp_path / "pages" / "docs" / "integrations.md").read_text()
    shown = (tmp_path / "pages" / "examples" / "fsdp2.py.md").read_text()
    assert (ROOT / "examples" / "fsdp2.py").read_text() in shown


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
