"""The settings that decide how results are read, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from warmstart.errors import require
from warmstart.setting import MOST_NAMES, Setting
from warmstart.settings import Settings


class ReadingSettings(Settings):
    """The settings that decide how results are read, and when."""

    title: ClassVar[str] = "The verdict"

    margin: Annotated[
        float,
        Setting(
            "Loss in accuracy that is acceptable, 0.01 for one point",
            "X",
            at_least=0,
            below=1,
            remark=" (0.01 is one point of accuracy)",
            role="reading",
        ),
    ] = 0.005
    """Half a point: what two runs of the same training usually differ by at least, and hardly anybody would pay for."""
    max_seeds: Annotated[
        int | None,
        Setting(
            "Seeds are added, up to N, until the verdict is decided",
            "N",
            at_least=1,
            at_most=MOST_NAMES,
            role="limit",
        ),
    ] = None
    """They double from look to look, and the error of 5 % is split over the looks: see `evidence.sequential`."""

    def looks_from(self, seeds: int) -> Sequence[int]:
        """With how many seeds results are looked at, the first time with so many."""
        if self.max_seeds is None:
            return (seeds,)
        from warmstart.evidence.sequential import planned_looks

        return planned_looks(seeds, self.max_seeds)

    def require_most(self, seeds: int) -> None:
        """Raise InputError if there may be fewer seeds than there are at first."""
        most = self.max_seeds
        require(most is None or most >= seeds, f"max_seeds is {most}, below seeds, {seeds}; ask for at least as many")
