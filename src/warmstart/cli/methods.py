"""`warmstart methods`: what can be compared, and what each can be set to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin, get_type_hints

import typer

from warmstart.errors import one_of

if TYPE_CHECKING:
    from warmstart.methods.method import Method

EXAMPLES = """Examples:

warmstart methods

warmstart methods dash fire
"""


def methods(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Explain the settings of these.", show_default=False),
    ] = None,
) -> None:
    r"""List the methods: what each does and when, its settings with their defaults, its cost and its source.

    A setting goes into brackets: warmstart compare --methods 'cold,dash,dash\[alpha=0.1,lambda=0.05]'
    """
    from rich.padding import Padding

    from warmstart.methods.registry import methods as all_methods
    from warmstart.reporting.terminal import Terminal

    known = all_methods()
    wanted = [one_of("method", name, known) for name in names or known]
    console = Terminal()
    for name, kind in ((name, known[name]) for name in wanted):
        console.print(name, style="bold")
        for line in _lines(kind, explained=bool(names)):
            console.print(Padding(line, (0, 0, 0, 4)))


def _lines(kind: type[Method], explained: bool) -> Iterator[str]:
    yield kind.summary
    if settings := [f"{name.rstrip('_')}={value}" for name, value in kind().settings().items()]:
        if not explained:
            yield f"settings: {', '.join(settings)}"
        for written, line in zip(settings, _explained(kind), strict=True):
            if explained:
                yield f"{written}: {line}"
    yield from (f"variant {variant}: {text}" for variant, text in kind.variants.items())
    told = {"acts": kind.acts, "costs": kind.cost, "not for": kind.limits, "source": kind.source}
    yield from (f"{what}: {text}" for what, text in told.items() if text)


def _explained(kind: type[Method]) -> Iterator[str]:
    """What each setting is, which values it takes, and where tuning searches it."""
    search, types = kind().search, get_type_hints(kind)
    for name, setting in kind.described().items():
        choices = get_args(types[name]) if get_origin(types[name]) is Literal else setting.choices
        tuned = f"tuned over {search[name]}" if name in search else ""
        facts = "; ".join(filter(None, [setting.range, ", ".join(choices), tuned]))
        yield setting.help.replace("``", "") + (f" ({facts})" if facts else "")
