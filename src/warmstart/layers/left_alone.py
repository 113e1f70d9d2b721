"""The record of a parameter or layer that a method leaves alone, with the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LeftAlone:
    """A parameter that a method does not change, or a layer whose outputs are no units, and why."""

    name: str
    reason: str
