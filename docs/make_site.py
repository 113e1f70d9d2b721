"""Lay out the site's pages: the repository's files that links lead to, from README.md on, where they lie.

So a relative link is the same in the site and on GitHub, and a page is in the site once another one links to it. A
script that is linked becomes a page that shows it; a notebook is run, and becomes a page with what its cells print and
draw. The navigation is the index, docs/README.md: a section for each heading, with the pages that its table names.
`make docs` runs this, and then the site's builder on what it writes.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import yaml
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
LAID_OUT = ROOT / "out" / "pages"
FRONT, INDEX, STYLE = "README.md", "docs/README.md", "docs/site.css"
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")
SHOWN = re.compile(r"(\]\([^)\s:]+\.(?:py|ipynb))\)")
"""Links to what becomes a page of Markdown: its own name, with `.md` behind it."""
FIGURES = re.compile(r"^\|.*$", re.MULTILINE)
SPREAD = re.compile(r"[+-]?\d[\d.]*x? \([^|()]*\)")
NAMED = re.compile(r"\[([\w./-]+\.md)\]\(([^)\s#:]+\.md)")
"""Links whose text is a file's name, which the site shows as the page's title."""
MOST_SECONDS = 300
"""That a cell of a notebook may take: far more than any does, so that one which hangs ends the build."""
OUTPUTS = """
{%- extends "markdown/index.md.j2" -%}
{% macro printed(text, kind) %}
``` { .text .output .{{ kind }} }
{{ text | strip_ansi | trim("\n") }}
```
{% endmacro %}
{% block stream %}{{ printed(output.text, output.name) }}{% endblock %}
{% block data_text scoped %}{{ printed(output.data["text/plain"], "value") }}{% endblock %}
{% block data_svg %}
![{{ cell.metadata.alt }}]({{ output.metadata.filenames["image/svg+xml"] | path2url }})
{% endblock %}
"""
"""What cells print in blocks of their own kind, and figures with the words that stand in the cell's `alt`."""


def lay_out() -> None:
    """Write the pages, and the settings of the builder beside them."""
    shutil.rmtree(LAID_OUT, ignore_errors=True)
    pages = {*_linked(FRONT, set()), STYLE}
    notebooks = sorted(path for path in pages if path.endswith(".ipynb"))
    with ThreadPoolExecutor() as pool:
        executed = dict(zip(notebooks, pool.map(_executed, notebooks), strict=True))
    for path in pages:
        there = LAID_OUT / path
        there.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".py"):
            there.with_suffix(".py.md").write_text(f"# {there.name}\n\n```python\n{(ROOT / path).read_text()}```\n")
        elif path.endswith(".ipynb"):
            shutil.copy(ROOT / path, there)
            _show_notebook(executed[path], there)
        elif path.endswith(".md"):
            there.write_text(_weight(path) + SHOWN.sub(r"\1.md)", FIGURES.sub(_unbroken, _titled(path))))
        else:
            shutil.copy(ROOT / path, there)
    settings = (ROOT / "mkdocs.yml").read_text()
    (LAID_OUT.parent / "mkdocs.yml").write_text(settings + yaml.safe_dump({"nav": _navigation()}, sort_keys=False))


def _unbroken(row: re.Match[str]) -> str:
    """A table's row in which no line is broken between a figure and its spread or interval."""
    return SPREAD.sub(lambda figure: figure[0].replace(" ", "\N{NO-BREAK SPACE}"), row[0])


def _titled(page: str) -> str:
    """A page with the titles of others where their files are named."""

    def titled(link: re.Match[str]) -> str:
        there = _text(posixpath.normpath(posixpath.join(posixpath.dirname(page), link[2])))
        return f"[{there.partition(chr(10))[0].lstrip('# ')}]({link[2]}"

    return NAMED.sub(titled, _text(page))


def _weight(page: str) -> str:
    """What says to the search that recipes come after the pages on what they use."""
    return "---\nsearch:\n  boost: 0.3\n---\n\n" if page.startswith("docs/recipes/") else ""


def _executed(path: str) -> nbformat.NotebookNode:
    """A notebook with what its cells print and draw; it works in a folder of its own, which goes with it."""
    notebook = nbformat.read(ROOT / path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # Spoken to through files, so that it needs no network; and no settings or history of the user's are read.
        files = {"transport": "ipc", "ip": f"{folder}/kernel", "connection_file": f"{folder}/kernel.json"}
        run = ExecutePreprocessor(
            timeout=MOST_SECONDS,
            kernel_name="python3",
            coalesce_streams=True,
            extra_arguments=["--InlineBackend.figure_formats=['svg']", f"--ipython-dir={folder}"],
            config=Config(KernelManager=files),
        )
        try:
            return run.preprocess(notebook, {"metadata": {"path": folder}})[0]
        except CellExecutionError as error:
            raise SystemExit(f"{path} failed\n{error}") from None


def _show_notebook(notebook: nbformat.NotebookNode, there: Path) -> None:
    """Write a notebook's page and its figures beside the notebook itself."""
    exporter = MarkdownExporter(raw_template=OUTPUTS)
    text, made = exporter.from_notebook_node(notebook, {"unique_key": there.stem})
    for name, content in made["outputs"].items():
        (there.parent / name).write_bytes(content)
    title, _, rest = SHOWN.sub(r"\1.md)", text).strip().partition("\n")
    says = f"*A notebook, run as this site was built: [{there.name}]({there.name}).*"
    there.with_suffix(".ipynb.md").write_text(f"{title}\n\n{says}\n{rest}\n")


def _navigation() -> list[object]:
    """The front page, each section of the index with its pages, and the index itself."""
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", (ROOT / INDEX).read_text(), re.MULTILINE)
    tables = {heading: "\n".join(re.findall(r"^\|.*", text, re.MULTILINE)) for heading, text in sections}
    named = {heading: [page for page in _targets(INDEX, table) if page != FRONT] for heading, table in tables.items()}
    return [FRONT, *({heading: [*map(_entry, pages)]} for heading, pages in named.items() if pages), INDEX]


def _entry(page: str) -> object:
    """A page, or the index of a folder with the pages there that it links to."""
    text = _text(page)
    folder = posixpath.dirname(page)
    inner = [target for target in dict.fromkeys(_targets(page, text)) if re.fullmatch(rf"{folder}/[^/]+\.md", target)]
    if page.endswith("README.md") and inner:
        return {text.partition("\n")[0].lstrip("# "): [page, *inner]}
    return f"{page}.md" if page.endswith((".py", ".ipynb")) else page


def _linked(page: str, found: set[str]) -> set[str]:
    """The files that a page's links lead to, directly or not, added to those found before."""
    found.add(page)
    for target in _targets(page, _text(page)):
        if not (ROOT / target).is_file():
            raise SystemExit(f"{page} links to {target}, which is no file; link to a file, such as {target}/README.md")
        if target not in found:
            _linked(target, found)
    return found


def _text(page: str) -> str:
    """What links are looked for in: the Markdown of a page or notebook; of any other file nothing."""
    if page.endswith(".ipynb"):
        cells = nbformat.read(ROOT / page, as_version=4).cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return (ROOT / page).read_text() if page.endswith(".md") else ""


def _targets(page: str, text: str) -> Iterator[str]:
    """The files that a page's text links to, by their places in the repository."""
    for target in LINK.findall(BLOCK.sub("", text)):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


if __name__ == "__main__":
    lay_out()
