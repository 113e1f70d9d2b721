"""`warmstart methods`: what can be compared, one line each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warmstart.methods.method import Method

EXAMPLES = """Example: warmstart methods"""


def methods() -> None:
    r"""List the methods: what each does and when, its settings with their defaults, its cost and its source.

    A setting goes into brackets: warmstart compare --methods 'cold,dash,dash\[alpha=0.1,lambda=0.05]'
    """
    from rich.padding import Padding

    from warmstart.methods.registry import methods as all_methods
    from warmstart.reporting.terminal import Terminal

    console = Terminal()
    for name, kind in all_methods().items():
        console.print(name, style="bold")
        lines = [kind.summary]
        if settings := _settings(kind):
            lines.append(f"settings: {settings}")
        lines += [f"variant {variant}: {text}" for variant, text in kind.variants.items()]
        told = {"acts": kind.acts, "costs": kind.cost, "not for": kind.limits, "source": kind.source}
        lines += [f"{what}: {text}" for what, text in told.items() if text]
        for line in lines:
            console.print(Padding(line, (0, 0, 0, 4)))


def _settings(kind: type[Method]) -> str:
    if not dataclasses.fields(kind):
        return ""
    return ", ".join(f"{key.rstrip('_')}={value}" for key, value in kind().settings().items())
