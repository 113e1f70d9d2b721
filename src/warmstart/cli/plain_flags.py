"""Commands whose help shows no type for flags that take no value."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command; typer would show ``<bool>`` beside ``--help``."""

    def get_params(self, ctx: Any) -> Any:
        """The options and arguments, and ``--help``."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """A command with commands of its own."""

    def get_params(self, ctx: Any) -> Any:
        """The options and arguments, and ``--help``."""
        return _without_types(super().get_params(ctx))


def _without_types(params: Any) -> Any:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params
