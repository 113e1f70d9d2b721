"""Where a setting is searched when methods are tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both above 0, evenly by their logarithm."""

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
