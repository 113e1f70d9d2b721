"""What a measure is, and the measures by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError, nearest


@dataclass(frozen=True)
class Measurement:
    """One number."""

    name: str
    """The measure's; in brackets the data that it was taken on, where there are several: ``gradient-norm[new]``."""
    value: float
    layer: str = ""
    """Empty for the network as a whole."""


class Measure:
    """Base of all measures: a subclass names itself and says where it comes from."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    """One line: what it is, with its range."""
    source: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    """In passes over the examples that it is given."""

    def of(self, subject: Subject) -> Iterator[Measurement]:
        """Measure a network.

        Yields:
            The network's number, and perhaps those of its layers.

        Raises:
            InputError: If it cannot be taken on this network, with the reason.
        """
        raise NotImplementedError


@cache
def measures() -> dict[str, Measure]:
    """All measures, name -> measure, in alphabetical order."""
    found: dict[str, Measure] = {}
    folder = Path(__file__).parent / "measures"
    for info in pkgutil.iter_modules([str(folder)]):
        module = importlib.import_module(f"{__package__}.measures.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Measure) and value.name:
                found[value.name] = value()
    return dict(sorted(found.items()))


def named_measures(names: tuple[str, ...]) -> list[Measure]:
    """The measures of these names, all for none; InputError if one is unknown."""
    known = measures()
    for name in names:
        if name not in known:
            raise InputError(f"measure '{name}' is unknown{nearest(name, known)}")
    return [known[name] for name in names or known]
