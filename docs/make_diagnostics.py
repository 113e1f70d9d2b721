"""Write the table of measures in docs/diagnostics.md from the measures themselves."""

from pathlib import Path

from warmstart.diagnostics.measure import measures

PAGE = Path(__file__).parent / "diagnostics.md"
BEGIN, END = "<!-- measures -->\n", "<!-- end -->\n"


def table() -> str:
    """The measures as Markdown."""
    rows = [
        f"| `{m.name}` | {m.summary.replace('|', chr(92) + '|')} | {m.source} | {m.cost} |" for m in measures().values()
    ]
    return "\n".join(["| measure | what it is | source | cost |", "|---|---|---|---|", *rows]) + "\n"


def page() -> str:
    """The page with its table as it should be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
