"""The error that means: the input was wrong, and nothing has been touched."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something that the caller gave is wrong; the message says what, where, and what to do.

    It is raised before any work is lost and before any weight changes. The command line prints the
    message as one line and exits with 2.
    """


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
