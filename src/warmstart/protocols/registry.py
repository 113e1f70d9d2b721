"""The protocols by name: a new file in this folder that defines a `Protocol` is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from warmstart.protocols.protocol import Protocol


@cache
def protocols() -> dict[str, Protocol]:
    """All protocols, name -> protocol, in alphabetical order."""
    found: dict[str, Protocol] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"{__package__}.{info.name}")
        found |= {value.name: value for value in vars(module).values() if isinstance(value, Protocol)}
    return dict(sorted(found.items()))
