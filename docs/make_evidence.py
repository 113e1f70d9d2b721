"""Write the tables and figures of docs/evidence/ from what was measured; given a folder of grids, take theirs first.

    python docs/make_evidence.py [out/evidence]

Of each grid that a page names, `kept_grids` keeps small files beside the pages. Tables and figures are made of these
alone.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from evidence_figures import FIGURES
from evidence_tables import BLOCKS, WHERE
from kept_grids import FOLDER, keep
from warmstart.reporting import figures

BLOCK = re.compile(r"<!-- (?P<kind>[\w-]+): (?P<grid>[\w-]+) -->\n(?:.*?)<!-- end -->\n", re.DOTALL)
RECORDS = ("authors-draws.csv", "ten-nights.csv")
"""What scripts of docs/evidence/ write, which are no grids."""
FIGURE = re.compile(r"!\[[^\]]*\]\((?P<kind>rates|stages|against-cold)-(?P<grid>[\w-]+)\.png\)")


def page_files() -> list[Path]:
    """The pages that may hold generated blocks."""
    return sorted([*FOLDER.parent.glob("*.md"), *FOLDER.glob("*.md")])


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    return {page: BLOCK.sub(_block, page.read_text(encoding="utf-8")) for page in page_files()}


def drawings() -> dict[Path, Figure]:
    """The figures that pages show."""
    found = [match for page in page_files() for match in FIGURE.finditer(page.read_text(encoding="utf-8"))]
    return {FOLDER / f"{m['kind']}-{m['grid']}.png": FIGURES[m["kind"]](m["grid"]) for m in found}


def _block(match: re.Match[str]) -> str:
    kind, grid = match["kind"], match["grid"]
    return f"<!-- {kind}: {grid} -->\n{BLOCKS[kind](grid)}<!-- end -->\n"


def main(arguments: Sequence[str]) -> None:
    """Keep what grids have, if a folder of them is given; write pages and figures."""
    named = {match["grid"] for page in page_files() for match in BLOCK.finditer(page.read_text(encoding="utf-8"))}
    named |= {grid for _, grid in WHERE}
    named = {grid.removesuffix("-given") for grid in named}  # which come with the tuned ones
    for folder in arguments:
        for name in RECORDS:
            if (record := Path(folder) / name).exists():
                shutil.copy(record, FOLDER)
        for grid in sorted(named):
            if (Path(folder) / grid / "results.csv").exists():
                print(f"{'kept' if keep(Path(folder) / grid) else 'not complete:'} {grid}")
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
    for file, figure in drawings().items():
        file.write_bytes(figures.to_png(figure))
        print(f"wrote {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
