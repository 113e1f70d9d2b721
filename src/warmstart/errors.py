"""InputError, which is raised before anything is changed, the checks that raise it, and other ends of the work."""

import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


class InputError(ValueError):
    """Something that the caller gave is wrong; the message says what, where, and what to do.

    It is raised before any work is lost and before any weight changes. The command line prints the
    message as one line and exits with 2.
    """


class DamagedError(InputError):
    """A file of ours is missing, or is not what was written: an earlier one may take its place."""


class OtherVersionError(InputError):
    """A file that another version of warmstart wrote, in a form that this one does not read: nothing is damaged."""


class WorkFailedError(Exception):
    """The work failed for a reason other than its input. Exit code 1."""

    def __init__(self, message: str, *, resumable: bool = True) -> None:
        """``resumable`` says whether the same call goes on from what was saved."""
        super().__init__(message)
        self.resumable = resumable


class HelpedError(Exception):
    """This process trained along with process 0, which writes and shows the results. Exit code 0."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'warm'?"`` if a known name is close to a mistyped one, else ``"; choose from a, b, c"``."""
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(names)}"


def require(condition: bool, message: str) -> None:
    """Raise InputError with this message, in one line, unless the condition holds."""
    if not condition:
        raise InputError(message)


def whole(key: str, value: Any) -> int:
    """The value of a setting, or InputError unless it is a whole number."""
    holds = isinstance(value, Integral) and not isinstance(value, bool)
    require(holds, f"{key} is {value!r}; it must be a whole number")
    return int(value)


def whole_number(key: str, value: Any, least: int) -> int:
    """The value of a setting, or InputError unless it is a whole number of at least ``least``."""
    require(whole(key, value) >= least, f"{key} is {value}; it must be at least {least}")
    return int(value)


def at_least_one(key: str, value: Any) -> int:
    """The value of a setting, or InputError unless it is a whole number of at least 1."""
    return whole_number(key, value, 1)


def number(key: str, value: Any) -> float:
    """The value of a setting, or InputError unless it is a number; call it before comparing the value with one."""
    holds = isinstance(value, Real) and not isinstance(value, bool)
    require(holds, f"{key} is {value!r}, a {type(value).__name__}; it must be a number")
    return float(value)


def within(key: str, value: float, holds: bool, where: str) -> float:
    """The value of a setting, or InputError unless it is finite and ``holds``; ``where`` is its range in words."""
    require(math.isfinite(value) and holds, f"{key} is {value}; it must be a finite number, {where}")
    return value


def one_of(kind: str, value: str, known: Collection[str]) -> str:
    """The value, or InputError unless it is a known name; ``kind`` says what it names."""
    require(value in known, f"{kind} '{value}' is unknown{nearest(value, known)}")
    return value
