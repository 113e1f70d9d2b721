"""What a measure is, and the measures by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from warmstart.diagnostics.subject import Subject
from warmstart.errors import InputError, nearest
from warmstart.importing import defined_in


@dataclass(frozen=True)
class Measurement:
    """One number."""

    name: str
    """The measure's; in brackets the data that it was taken on, where there are several: ``gradient-norm[new]``."""
    value: float
    layer: str = ""
    """Empty for the network as a whole."""


class Measure(ABC):
    """Base of all measures: a subclass names itself and says where it comes from."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    """One line: what it is, with its range."""
    source: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    """In passes over the examples that it is given."""

    @abstractmethod
    def of(self, subject: Subject) -> Iterator[Measurement]:
        """Measure a network.

        Yields:
            The network's number, and perhaps those of its layers.

        Raises:
            InputError: If it cannot be taken on this network, with the reason.
        """

    def whole_and_layers(self, whole: float, layers: Mapping[str, float]) -> Iterator[Measurement]:
        """The network's number, then those of its layers."""
        yield Measurement(self.name, whole)
        yield from (Measurement(self.name, value, layer) for layer, value in layers.items())


@cache
def measures() -> dict[str, Measure]:
    """All measures, name -> measure, in alphabetical order."""
    kinds = (value for value in defined_in("warmstart.diagnostics.measures") if isinstance(value, type))
    found = {kind.name: kind() for kind in kinds if issubclass(kind, Measure) and kind.name}
    return dict(sorted(found.items()))


def named_measures(names: tuple[str, ...]) -> list[Measure]:
    """The measures of these names, all for none; InputError if one is unknown."""
    known = measures()
    for name in names:
        if name not in known:
            raise InputError(f"measure '{name}' is unknown{nearest(name, known)}")
    return [known[name] for name in names or known]
