"""What a measure is, and the measures by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

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


def chosen_measures(chosen: Sequence[Any]) -> list[Measure]:
    """The measures of these names, and those given themselves; all for none. InputError if one is neither."""
    known = measures()
    for one in chosen:
        if not isinstance(one, (str, Measure)):
            hint = "call it" if isinstance(one, type) else "pass a name or a Measure"
            raise InputError(f"{one!r} is no measure: {hint}")
        if isinstance(one, str) and one not in known:
            raise InputError(f"measure '{one}' is unknown{nearest(one, known)}")
    return [known[one] if isinstance(one, str) else one for one in chosen or list(known)]
