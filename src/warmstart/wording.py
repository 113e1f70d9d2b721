"""How numbers of things are written in reports and messages."""


def counted(number: int, thing: str) -> str:
    """Write a number of things.

    Args:
        number: How many.
        thing: What one of them is called.

    Returns:
        Such as ``1 seed`` or ``1,200 examples``.
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
