"""A recipe among settings, single or named: `--protocol NAME` stands for a whole one, which other flags change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from warmstart.protocols.registry import protocols
from warmstart.setting import Setting
from warmstart.training.recipe import Recipe


class NamedRecipe(Recipe):
    """A recipe, or a protocol that stands for a whole one."""

    protocol: Annotated[
        str | None,
        Setting(
            "A whole recipe and stream by name, which single flags then change",
            "NAME",
            choices=tuple(protocols()),
            default="none",
            role="running",
        ),
    ] = None
    """It decides nothing by itself: what it stands for is recorded."""

    @classmethod
    def of_protocol(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the protocol stands for; nothing where it is unknown, which its own check says."""
        named = protocols().get(str(given.get("protocol")))
        return {} if named is None else named.settings(given)

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "", *, recorded: bool = False) -> Self:
        """Check settings, with what a protocol stands for where they do not say it."""
        return super().of({**cls.of_protocol(settings), **settings}, where, recorded=recorded)
