"""The protocols by name: a new file in this folder that defines a `Protocol` is found by itself."""

from __future__ import annotations

from functools import cache

from warmstart.importing import defined_in
from warmstart.protocols.protocol import Protocol


@cache
def protocols() -> dict[str, Protocol]:
    """All protocols, name -> protocol, in alphabetical order."""
    found = {value.name: value for value in defined_in("warmstart.protocols") if isinstance(value, Protocol)}
    return dict(sorted(found.items()))
