"""Lay out the site's pages: the repository's files that links lead to, from README.md on, where they lie.

So a relative link is the same in the site and on GitHub, and a page is in the site once another one links to it. A
script that is linked becomes a page that shows it. The navigation is the index, docs/README.md: a section for each
heading, with the pages that its table names. `make docs` runs this, and then the site's builder on what it writes.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LAID_OUT = ROOT / "out" / "pages"
FRONT, INDEX, STYLE = "README.md", "docs/README.md", "docs/site.css"
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")


def lay_out() -> None:
    """Write the pages, and the settings of the builder beside them."""
    shutil.rmtree(LAID_OUT, ignore_errors=True)
    for path in {*_linked(FRONT, set()), STYLE}:
        there = LAID_OUT / path
        there.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".py"):
            there.with_suffix(".py.md").write_text(f"# {there.name}\n\n```python\n{(ROOT / path).read_text()}```\n")
        elif path.endswith(".md"):
            there.write_text(re.sub(r"(\]\([^)\s:]+\.py)\)", r"\1.md)", (ROOT / path).read_text()))
        else:
            shutil.copy(ROOT / path, there)
    settings = (ROOT / "mkdocs.yml").read_text()
    (LAID_OUT.parent / "mkdocs.yml").write_text(settings + yaml.safe_dump({"nav": _navigation()}, sort_keys=False))


def _navigation() -> list[object]:
    """The front page, each section of the index with its pages, and the index itself."""
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", (ROOT / INDEX).read_text(), re.MULTILINE)
    tables = {heading: "\n".join(re.findall(r"^\|.*", text, re.MULTILINE)) for heading, text in sections}
    named = {heading: [page for page in _targets(INDEX, table) if page != FRONT] for heading, table in tables.items()}
    return [FRONT, *({heading: [*map(_entry, pages)]} for heading, pages in named.items() if pages), INDEX]


def _entry(page: str) -> object:
    """A page, or the index of a folder with the pages there that it links to."""
    text = (ROOT / page).read_text()
    folder = posixpath.dirname(page)
    inner = [target for target in _targets(page, text) if re.fullmatch(rf"{folder}/[^/]+\.md", target)]
    return {text.partition("\n")[0].lstrip("# "): [page, *inner]} if page.endswith("README.md") and inner else page


def _linked(page: str, found: set[str]) -> set[str]:
    """The files that a page's links lead to, directly or not, added to those found before."""
    found.add(page)
    for target in _targets(page, (ROOT / page).read_text() if page.endswith(".md") else ""):
        if not (ROOT / target).is_file():
            raise SystemExit(f"{page} links to {target}, which is no file; link to a file, such as {target}/README.md")
        if target not in found:
            _linked(target, found)
    return found


def _targets(page: str, text: str) -> Iterator[str]:
    """The files that a page's text links to, by their places in the repository."""
    for target in LINK.findall(BLOCK.sub("", text)):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


if __name__ == "__main__":
    lay_out()
