"""Assemble one self-contained HTML page: no network, no script, light and dark, phone and print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

from warmstart.wording import one_line

Html = NewType("Html", str)
"""Text that is HTML already; everything else is escaped."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --paper: #fff; --tint: #f3f5f7;
  --mark: #0072b2; --warn: #b35300; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa5b1; --line: #3a424b; --paper: #14171a;
  --tint: #1d2226; --mark: #56b4e9; --warn: #e69f00; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.9rem 0 .4rem; }
p, li, dd { max-width: 46rem; }
p { margin: .6rem 0; }
a { color: var(--mark); overflow-wrap: anywhere; }
code, pre { font: .88em/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.lead { color: var(--soft); margin: 0 0 1.25rem; }
.verdict { font-size: 1.2rem; line-height: 1.45; max-width: 52rem; margin: 1.25rem 0; padding: .9rem 1.1rem;
  border-left: .35rem solid var(--mark); background: var(--tint); border-radius: 0 .4rem .4rem 0; }
.warning { max-width: 52rem; margin: 1rem 0; padding: .6rem .9rem; border-left: .35rem solid var(--warn);
  background: var(--tint); border-radius: 0 .4rem .4rem 0; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .94rem; }
.caption { color: var(--soft); font-size: .94rem; }
th, td { text-align: right; padding: .35rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
thead th { border-bottom: 2px solid var(--soft); white-space: normal; min-width: 4.5rem; }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
tbody th { overflow-wrap: anywhere; white-space: normal; min-width: 8.5rem; }
tr.best { background: var(--tint); }
tr.best th::after { content: " \\2713"; color: var(--mark); }
table.text th, table.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.text tbody th { white-space: nowrap; min-width: 0; vertical-align: top; }
table.text thead th { overflow-wrap: normal; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem 2.5rem;
  align-items: start; }
figure { margin: .8rem 0 0; max-width: 36rem; }
figcaption { color: var(--soft); font-size: .94rem; margin-top: .4rem; }
svg.figure { display: block; width: 100%; height: auto; }
svg.figure text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif !important; }
footer { margin-top: 3rem; color: var(--soft); font-size: .9rem; }
@media (max-width: 34rem) { body { padding: 1.25rem .9rem 3rem; } h1 { font-size: 1.35rem; }
  .verdict { font-size: 1.08rem; } th, td { padding: .3rem .45rem; } table { font-size: .84rem; }
  tbody th { min-width: 7.6rem; } thead th { min-width: 3.6rem; } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --tint: #f2f2f2; --mark: #0072b2;
  --warn: #b35300; color-scheme: light; } html { font-size: 9.5pt; } body { max-width: none; padding: 0; }
  svg.figure { max-height: 19cm; } h2 { margin-top: 1.6rem; }
  figure, tr, .verdict, .warning { break-inside: avoid; } h2, h3 { break-after: avoid; } .scroll { overflow: visible; }
  .figures { grid-template-columns: 1fr 1fr; } th, td { padding: .25rem .4rem; } }
"""


def page(title: str, lead: str, body: Iterable[Html], *, footer: str = "") -> str:
    """A whole page, which refers to nothing outside itself but for links; ``lead`` is a line below the title."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header><h1>{_escaped(title)}</h1>\n<p class="lead">{_escaped(lead)}</p></header>\n<main>\n'
        f"{_joined(body)}\n</main>\n<footer>{_escaped(footer)}</footer>\n</body>\n</html>\n"
    )


def section(heading: str, *blocks: Html) -> Html:
    """A part of the page with its heading; nothing without blocks."""
    if not any(blocks):
        return Html("")
    return Html(f"<section>\n<h2>{_escaped(heading)}</h2>\n{_joined(blocks)}\n</section>")


def subsection(heading: str, *blocks: Html) -> Html:
    """A part of a section with its heading; nothing without blocks."""
    return Html(f"<h3>{_escaped(heading)}</h3>\n{_joined(blocks)}") if any(blocks) else Html("")


def paragraph(text: str, *, kind: str = "") -> Html:
    """A paragraph, of ``kind`` verdict, warning or plain; text in `backquotes` is code, and addresses become links."""
    return Html(f'<p class="{kind}">{_inline(text)}</p>' if kind else f"<p>{_inline(text)}</p>")


def bullets(items: Iterable[str]) -> Html:
    """A list, each item marked up as in `paragraph`; nothing without items."""
    lines = "".join(f"<li>{_inline(item)}</li>\n" for item in items)
    return Html(f"<ul>\n{lines}</ul>" if lines else "")


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    best: str | None = None,
    text: bool = False,
) -> Html:
    """A table whose first column names the rows; the row ``best`` is marked, cells of ``text`` are prose to wrap."""
    heads = "".join(f'<th scope="col">{_escaped(cell)}</th>' for cell in head)
    body = "".join(
        f"<tr{' class=best' if row[0] == best else ''}>"
        f'<th scope="row">{_breakable(row[0])}</th>'
        + "".join(f"<td>{_escaped(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in rows
    )
    return Html(
        f'<p class="caption">{_inline(caption)}</p>\n'
        f'<div class="scroll" role="region" aria-label="{_escaped(caption)}" tabindex="0">'
        f"<table{' class=text' if text else ''}>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def figure(svg: str, caption: str) -> Html:
    """An ``<svg>`` element with its caption."""
    return Html(f"<figure>{svg}<figcaption>{_inline(caption)}</figcaption></figure>")


def side_by_side(*blocks: Html) -> Html:
    """Blocks beside one another where there is room."""
    return Html(f'<div class="figures">\n{_joined(blocks)}\n</div>')


def _escaped(text: str) -> str:
    return escape(one_line(text))


def _joined(blocks: Iterable[Html]) -> str:
    return "\n".join(block for block in blocks if block)


def _inline(text: str) -> str:
    parts = _escaped(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else _linked(part) for index, part in enumerate(parts))


def _linked(escaped: str) -> str:
    return re.sub(r"https://\S*[^\s.,;:)]", r'<a href="\g<0>">\g<0></a>', escaped)


def _breakable(name: str) -> str:
    # A line may break before a method's settings, and between them.
    return _escaped(name).replace("[", "<wbr>[").replace(",", ",<wbr>")
