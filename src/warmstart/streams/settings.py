"""The settings of a stream of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationInfo, field_validator

from warmstart.settings import Setting, Settings

RANDOM = "random"
TESTS = ("fixed", "rotate", "next")
STAGES, STAGE_SIZE = 6, 50
"""Of random draws."""


class StreamSettings(Settings):
    """What arrives when, and what is tested."""

    title: ClassVar[str] = "The stream"

    order: Annotated[
        str,
        Setting(
            "random draws; given: the order of rows or file names; or a column of times (month for month folders)",
            "random|given|COLUMN",
            example="random",
        ),
    ] = RANDOM
    stages: Annotated[
        int | None, Setting("Arrivals of data", "N", at_least=1, default=f"{STAGES}; in a real order all")
    ] = STAGES
    stage_size: Annotated[
        int | None,
        Setting(
            "New examples a stage", "N", at_least=1, default=f"{STAGE_SIZE}; in a real order what arrived together"
        ),
    ] = STAGE_SIZE
    test: Annotated[
        str | None,
        Setting(
            "What is tested: the data's own part, a fifth that rotates over the seeds, or the next arrival",
            "NAME",
            choices=TESTS,
            default="the own part, else rotate",
        ),
    ] = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "", *, recorded: bool = False) -> Self:
        """Check settings; in a real order the data say how many arrivals there are, unless the settings do."""
        open_ = {} if settings.get("order", RANDOM) == RANDOM else {"stages": None, "stage_size": None}
        return super().of({**open_, **settings}, where, recorded=recorded)

    @field_validator("stages", "stage_size")
    @classmethod
    def _of_random_draws(cls, value: int | None, info: ValidationInfo) -> Any:
        if value is None and info.data.get("order") == RANDOM:
            return cls.model_fields[info.field_name or ""].default
        return value
