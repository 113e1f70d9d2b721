"""What a network of the library is: a factory with its name and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warmstart.models.factory import ModelFactory

InputRange = Literal["normalised", "unit"]
"""`normalised`: each channel has mean 0 and std 1 over the training part. `unit`: values in [0, 1]."""


@dataclass(frozen=True)
class Network:
    """A network by name; the factory's further arguments are its settings."""

    name: str
    """As on the command line."""
    factory: ModelFactory
    summary: str
    """One line."""
    source: str
    input_range: InputRange = "normalised"
