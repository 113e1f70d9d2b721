"""The error that means: the input was wrong, and nothing has been touched; and the checks that raise it."""

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


class WorkFailedError(Exception):
    """The work failed for a reason that is not the input's; what was saved can go on. Exit code 1."""


class HelpedError(Exception):
    """This process trained along with the first one, which writes and shows the results. Exit code 0."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known name a mistyped one probably meant.

    Args:
        word: The name as it was typed.
        known: The valid names, any iterable of strings.

    Returns:
        ``"; did you mean 'warm'?"`` where a name is close, else ``"; choose from a, b, c"``.
    """
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(names)}"


def require(condition: bool, message: str) -> None:
    """Refuse what was given.

    Args:
        condition: What must hold.
        message: What is wrong and what to do, in one line.

    Raises:
        InputError: If it does not hold.
    """
    if not condition:
        raise InputError(message)


def whole_number(key: str, value: Any, least: int) -> int:
    """Check a count.

    Args:
        key: The setting's name.
        value: What it is.
        least: The smallest that it may be.

    Returns:
        The value.

    Raises:
        InputError: If it is below, or no whole number.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(whole, f"{key} is {value!r}; it must be a whole number")
    require(value >= least, f"{key} is {value}; it must be at least {least}")
    return int(value)


def at_least_one(key: str, value: Any) -> int:
    """Check a count of what there must be.

    Args:
        key: The setting's name.
        value: What it is.

    Returns:
        The value.

    Raises:
        InputError: If it is below 1, or no whole number.
    """
    return whole_number(key, value, 1)


def number(key: str, value: Any) -> float:
    """Check that a setting is a number, before it is compared with one.

    Args:
        key: The setting's name.
        value: What it is.

    Returns:
        The value.

    Raises:
        InputError: If it is text, or anything else.
    """
    holds = isinstance(value, Real) and not isinstance(value, bool)
    require(holds, f"{key} is {value!r}, a {type(value).__name__}; it must be a number")
    return value  # type: ignore[no-any-return]  # a number of any type, NumPy's included


def within(key: str, value: float, holds: bool, where: str) -> float:
    """Check a number.

    Args:
        key: The setting's name.
        value: What it is.
        holds: Whether it lies in its range.
        where: The range in words, such as ``above 0``.

    Returns:
        The value.

    Raises:
        InputError: If it does not, or is not finite.
    """
    require(math.isfinite(value) and holds, f"{key} is {value}; it must be a finite number, {where}")
    return value


def one_of(kind: str, value: str, known: Collection[str]) -> str:
    """Check a name.

    Args:
        kind: What it names.
        value: The name.
        known: The names that there are.

    Returns:
        The value.

    Raises:
        InputError: If it is none of them.
    """
    require(value in known, f"{kind} '{value}' is unknown{nearest(value, known)}")
    return value
