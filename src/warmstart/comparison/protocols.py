"""Recipes by name: what `--protocol NAME` stands for, which single flags then change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from warmstart.training.named_recipes import INCREMENTAL, PRACTICE, SOTA
from warmstart.training.recipe import Recipe

PROTOCOLS: Mapping[str, Recipe] = MappingProxyType({"incremental": INCREMENTAL, "practice": PRACTICE, "sota": SOTA})
FEW, SMALL_BATCH = 1000, 64
"""`practice` takes such batches where a stage has fewer images."""
_OPEN = ("optimizer", "precision")
"""What no protocol says."""


def settings_of(name: str, stage_size: int) -> dict[str, Any]:
    """The settings that a protocol stands for, with so many images a stage; none where the name is unknown."""
    if name not in PROTOCOLS:
        return {}
    recipe = PROTOCOLS[name]
    settings = {key: getattr(recipe, key) for key in Recipe.described() if key not in _OPEN}
    return {**settings, "batch_size": SMALL_BATCH} if name == "practice" and stage_size < FEW else settings
