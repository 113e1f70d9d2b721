"""Every random choice follows from a seed and its purpose, so that any part of a run can be repeated alone."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A seed below 2^63 for one purpose, such as ``("order", stage, epoch)``, unrelated to those of other purposes."""
    # The method is never part of the purpose: compared methods see the same split, first weights and order.
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
