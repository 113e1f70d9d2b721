"""Write the table of methods in docs/methods.md from the methods themselves."""

from pathlib import Path

from warmstart.methods.registry import methods

PAGE = Path(__file__).parent / "methods.md"
BEGIN, END = "<!-- methods -->\n", "<!-- end -->\n"


def table() -> str:
    """The methods as Markdown, in the order of their years."""
    rows = ["| method | year | what it does | acts | costs | not for | source |", "|---|---|---|---|---|---|---|"]
    for method in sorted(methods().values(), key=lambda method: method.year):
        told = (method.summary, method.acts, method.cost, method.limits, method.source)
        cells = " | ".join(text.replace("|", r"\|") for text in told)
        rows.append(f"| [`{method.name}`]({method.page}) | {method.year or ''} | {cells} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """The page with its table as it should be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
