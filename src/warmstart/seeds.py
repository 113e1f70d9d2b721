"""Every random choice from a seed and its purpose, so that any part of a run can be repeated alone."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose.

    The method is never part of the purpose: methods that are compared see the same split, first weights and order.

    Args:
        seed: The run's seed.
        purpose: What the randomness is for, such as ``("order", stage, epoch)``.

    Returns:
        A number below 2^63, unrelated to those of other purposes.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
