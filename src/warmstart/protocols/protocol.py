"""What a protocol is: a stream and a recipe, as the settings of `warmstart compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warmstart.training.recipe import Recipe


@dataclass(frozen=True)
class Protocol:
    """A stream and a recipe under one name; single settings then change it."""

    name: str
    """As on the command line."""
    summary: str
    """One line."""
    source: str
    recipe: Recipe
    stream: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the stream, by key; empty where any will do."""
    names_optimizer: bool = False
    """Whether the recipe's optimizer belongs to it; else the grid chooses."""

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that it stands for, among others that are given.

        Args:
            given: Settings by key. Of the milestones those remain that lie within its ``epochs``.

        Returns:
            Settings by key, but for precision, which is left open.
        """
        left_open = {"precision"} if self.names_optimizer else {"precision", "optimizer"}
        recipe = {key: getattr(self.recipe, key) for key in Recipe.described() if key not in left_open}
        if str(epochs := given.get("epochs")).isdecimal():
            recipe["milestones"] = tuple(epoch for epoch in self.recipe.milestones if epoch < int(str(epochs)))
        return {**recipe, **self.stream}
