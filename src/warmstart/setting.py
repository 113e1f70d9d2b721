"""What a setting is: one field's help, range and choices, from which flag, YAML key, check and search follow."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from warmstart.errors import number, one_of, require, whole

MOST_NAMES = 10_000
"""In a list, such as methods or seeds."""

Role = Literal["numbers", "extensible", "limit", "reading", "running"]
"""What a setting decides: ``numbers`` those of a run; ``extensible`` which runs there are; ``limit`` how many there may
be; ``reading`` how results are read; ``running`` how and where runs are computed, which changes no number."""


@dataclass(frozen=True)
class Range:
    """Where a number is searched: from ``low`` to ``high``, both above 0, evenly by their logarithm."""

    low: float
    high: float
    whole: bool = False

    def at(self, share: float) -> float | int:
        """The number at a share of the way, in [0, 1]: to two digits, since tuning is no finer."""
        rounded = float(f"{self.low * (self.high / self.low) ** share:.1e}")
        return round(rounded) if self.whole else rounded

    def __str__(self) -> str:
        """Such as ``0.001 to 0.3``."""
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Options:
    """A few values, each as likely."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share of the way, in [0, 1]."""
        return self.values[min(len(self.values) - 1, math.floor(share * len(self.values)))]

    def __str__(self) -> str:
        """Such as ``1, 3 or 10``."""
        *most, last = map(str, self.values)
        return f"{', '.join(most)} or {last}" if most else last


Search = Range | Options
"""Where a setting is searched when methods are tuned."""


@dataclass(frozen=True)
class Setting:
    """All about a setting but its type and default; it stands in the field's `Annotated`."""

    help: str
    metavar: str = ""
    """What a flag's help calls the value."""
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    noun: str = ""
    """What a choice is called in an error; the field's name if not given."""
    remark: str = ""
    """Follows the range in an error."""
    example: str = ""
    """A valid value, named where a text or list is empty."""
    default: str = ""
    """The default as help shows it; the field's own if not given."""
    auto: bool = False
    """Whether the value is a whole number or ``auto``, which stands for one that the machine decides."""
    percent: bool = False
    """Whether the value is a share that may be given as a text, such as ``1%``."""
    role: Role = "numbers"
    search: Search | None = None
    """Where tuning searches it; None: nowhere."""

    def check_typed(self, kind: Any, name: str, value: Any) -> None:
        """Raise InputError unless a value is of a type, such as ``float | None``, and passes `check`."""
        options = get_args(kind) or (kind,)
        if value is None and NoneType in options:
            return
        if get_origin(kind) is Literal:
            one_of(name, str(value), options)
        elif float in options:
            value = number(name, value)
        elif int in options:
            value = whole(name, value)
        elif bool in options:
            require(isinstance(value, bool), f"{name} is {value!r}; it must be true or false")
        else:
            require(isinstance(value, str), f"{name} is {value!r}, a {type(value).__name__}; it must be a name")
        self.check(name, value)

    def check(self, name: str, value: Any) -> None:
        """Raise InputError if a value is out of range, not a choice, empty, or has an item twice."""
        if isinstance(value, tuple):
            noun = self.noun or name.removesuffix("s")
            require(bool(value) or not self.example, f"{name} is empty; name at least one, such as {self.example}")
            require(len(value) <= MOST_NAMES, f"{name} has {len(value):,} items; give at most {MOST_NAMES:,}")
            for item, times in Counter(value).items():
                self._check_one(noun, item)
                require(times == 1, f"{name}: '{item!s:.60}' appears twice; name each once")
        elif value is not None and value != "auto":
            self._check_one(self.noun if self.choices and self.noun else name, value)

    def _check_one(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            if self.choices:
                one_of(name, value, self.choices)
            require(bool(value.strip()), f"{name} is empty; name {self.example or 'it'}")
        elif self.range:
            kind = "a finite number, " if isinstance(value, float) else ""
            require(self._holds(value), f"{name} is {value!s:.40}; it must be {kind}{self.range}{self.remark}")

    @property
    def range(self) -> str:
        """The range in words, such as ``at least 0 and below 1``; empty where there is none."""
        bounds = {"above": self.above, "at least": self.at_least, "below": self.below, "at most": self.at_most}
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)

    def _holds(self, value: float) -> bool:
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )
