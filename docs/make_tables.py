"""Write the tables of docs/methods.md, diagnostics.md and tuning.md from the methods and measures themselves."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from warmstart.diagnostics.measure import measures
from warmstart.grids.trials import RECIPE_SPACE
from warmstart.methods.registry import methods

DOCS = Path(__file__).parent
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    by_year = sorted(methods().values(), key=lambda method: method.year)
    method_rows = [
        (f"[`{m.name}`]({m.page})", str(m.year or ""), m.summary, m.acts, m.cost, m.limits, m.source) for m in by_year
    ]
    measure_rows = [(f"`{m.name}`", m.summary, m.source, m.cost) for m in measures().values()]
    return {
        DOCS / "methods.md": _page(
            "methods.md", ("method", "year", "what it does", "acts", "costs", "not for", "source"), method_rows
        ),
        DOCS / "diagnostics.md": _page("diagnostics.md", ("measure", "what it is", "source", "cost"), measure_rows),
        DOCS / "tuning.md": _page("tuning.md", ("setting", "of", "searched"), _search_rows()),
    }


def _search_rows() -> list[tuple[str, str, str]]:
    optimizers: dict[tuple[str, str], list[str]] = {}
    for optimizer, space in RECIPE_SPACE.items():
        for name, place in space.items():
            optimizers.setdefault((name, str(place)), []).append(optimizer)
    recipe = [(f"`{name}`", f"all, with {' and '.join(of)}", place) for (name, place), of in sorted(optimizers.items())]
    own = [(kind.name, name.rstrip("_"), place) for kind in methods().values() for name, place in kind().search.items()]
    return [*recipe, *((f"`{name}`", f"`{method}`", str(place)) for method, name, place in own)]


def _page(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    before, _, rest = (DOCS / name).read_text(encoding="utf-8").partition(BEGIN)
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return before + BEGIN + table + END + rest.partition(END)[2]


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
