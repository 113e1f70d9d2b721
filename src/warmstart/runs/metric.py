"""What is measured after each stage, and how it is written: accuracies in percent and points, others as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What the column ``test_accuracy`` holds."""

    name: str = "accuracy"
    higher_is_better: bool = True

    @property
    def is_accuracy(self) -> bool:
        """Whether it is accuracy, which is shown in percent."""
        return self.name == "accuracy"

    @property
    def scale(self) -> int:
        """The factor by which a value is multiplied before it is shown."""
        return 100 if self.is_accuracy else 1

    @property
    def unit(self) -> str:
        """The unit behind the name in a table's head, such as `` %``."""
        return " %" if self.is_accuracy else ""

    @property
    def form(self) -> str:
        """The format of a value in a table."""
        return ".2f" if self.is_accuracy else ".4g"

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def axis(self) -> str:
        """The label of a figure's axis."""
        return f"test {self.name}, %" if self.is_accuracy else self.name

    def text(self, value: float) -> str:
        """A value in a line of text, such as ``96.3%`` or ``perplexity 41.2``."""
        return f"{value:.1%}" if self.is_accuracy else f"{self.name} {value:.4g}"

    def difference(self, value: float, sign: str = "", *, unit: bool = True) -> str:
        """A difference, of accuracies in points, such as ``+1.7 points``; a dash if it is not finite."""
        if not math.isfinite(value):
            return "–"
        if not self.is_accuracy:
            return f"{value:{sign}.3g}"
        return f"{100 * value:{sign}z.1f}{' points' if unit else ''}"


ACCURACY = Metric()
