"""A release: one version everywhere, and a page for language models whose links and code work."""

import re
from pathlib import Path

import yaml

import warmstart as ws

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == ws.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == ws.__version__


def test_the_workflow_calls_targets_of_make():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    called = {"tests", *jobs["others"]["strategy"]["matrix"]["target"]}
    (all_of_test,) = re.findall(r"^test: \S+ (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert called == set(all_of_test.split())
    assert jobs["tests"]["steps"][-1]["run"] == "make tests"


def test_what_language_models_are_told_works(capsys):
    page = (ROOT / "llms.txt").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 5
    assert all((ROOT / link).is_file() for link in links)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert "old data has" in capsys.readouterr().out
