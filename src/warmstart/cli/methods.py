"""`warmstart methods`: what can be compared, and what each can be set to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin, get_type_hints

import typer

if TYPE_CHECKING:
    from warmstart.methods.method import Method

EXAMPLES = """Examples:

warmstart methods

warmstart methods dash fire mine:Prune
"""


def methods(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...", help="Explain the settings of these; your own is pkg.module:Class.", show_default=False
        ),
    ] = None,
) -> None:
    r"""List the methods: what each does and when, its settings with their defaults, its cost and its source.

    A setting goes into brackets: warmstart compare --methods 'cold,dash,dash\[alpha=0.1,lambda=0.05]'
    """
    from rich.padding import Padding

    from warmstart.methods.registry import methods as all_methods
    from warmstart.methods.registry import parse_method
    from warmstart.reporting.terminal import Terminal

    wanted = [(name, parse_method(name)) for name in names or all_methods()]
    console = Terminal()
    for name, method in wanted:
        console.print(name, style="bold")
        for line in _lines(method, explained=bool(names)):
            console.print(Padding(line, (0, 0, 0, 4)))


def _lines(method: Method, explained: bool) -> Iterator[str]:
    yield method.summary
    settings = {name: f"{name.rstrip('_')}={value}" for name, value in method.settings().items()}
    if settings and not explained:
        yield f"settings: {', '.join(settings.values())}"
    if explained:
        explanations = dict(_explained(method))
        yield from (": ".join(filter(None, [text, explanations.get(name)])) for name, text in settings.items())
    yield from (f"variant {variant}: {text}" for variant, text in method.variants.items())
    told = {"acts": method.acts, "costs": method.cost, "not for": method.limits, "source": method.source}
    yield from (f"{what}: {text}" for what, text in told.items() if text)


def _explained(method: Method) -> Iterator[tuple[str, str]]:
    """By a setting's name what it is, which values it takes, and where tuning searches it."""
    search, types = method.search, get_type_hints(type(method))
    for name, setting in method.described().items():
        choices = get_args(types[name]) if get_origin(types[name]) is Literal else setting.choices
        tuned = f"tuned over {search[name]}" if name in search else ""
        facts = "; ".join(filter(None, [setting.range, ", ".join(choices), tuned]))
        yield name, setting.help.replace("``", "") + (f" ({facts})" if facts else "")
