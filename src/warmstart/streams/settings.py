"""The settings of a stream of images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ValidationInfo, field_validator

from warmstart.errors import InputError, require
from warmstart.setting import MOST_NAMES, Setting
from warmstart.settings import Settings

RANDOM, CLASSES = "random", "classes"
MADE_ORDERS = (RANDOM, CLASSES)
"""Made here rather than read from the data, which have no say in the number of stages then."""
TESTS = ("fixed", "rotate", "next")
SHIFTS = ("pixels", "labels", "random-labels")
STAGES, STAGE_SIZE = 6, 50
"""Of random draws."""

_SIZES = "give N, a share such as 10%, or one for each stage: 500,100,100"


def _sizes(value: Any) -> Any:
    """A whole number, or a text such as ``10%`` or ``500,100,100``."""
    if value is None or isinstance(value, int):
        return value
    parts = list(map(str, value)) if isinstance(value, (list, tuple)) else str(value).split(",")
    parts = [part.strip() for part in parts]
    for part in parts:
        match = re.fullmatch(r"(\d{1,9})|(\d{1,3}(?:\.\d{1,6})?)%", part)
        require(match is not None, f"stage_size is '{value!s:.40}'; {_SIZES}")
        assert match is not None
        holds = int(match[1]) > 0 if match[1] else 0 < float(match[2]) <= 100
        require(holds, f"stage_size is '{value!s:.40}'; a stage needs at least one example, and has at most 100%")
    require(len(parts) <= MOST_NAMES, f"stage_size names {len(parts):,} stages; give at most {MOST_NAMES:,}")
    return int(parts[0]) if len(parts) == 1 and parts[0].isdecimal() else ",".join(parts)


class StreamSettings(Settings):
    """What arrives when, and what is tested."""

    title: ClassVar[str] = "The stream"

    order: Annotated[
        str,
        Setting(
            "random draws; given: the order of rows or file names; a column of times (month for month folders); or "
            "classes: groups of classes",
            "random|given|COLUMN|classes",
            example="random",
        ),
    ] = RANDOM
    stage_size: Annotated[
        int | str | None,
        BeforeValidator(_sizes),
        Setting(
            "New examples a stage: a number, a share of all, or one for each stage",
            "N|N%|N,N,…",
            at_least=1,
            default=f"{STAGE_SIZE}; in a real order what arrived together",
        ),
    ] = STAGE_SIZE
    stages: Annotated[
        int | None, Setting("Arrivals of data", "N", at_least=1, default=f"{STAGES}; in a real order all")
    ] = STAGES
    shift: Annotated[
        str | None,
        Setting(
            "Each stage is another task, trained on alone: pixels in another order, labels exchanged, or drawn anew",
            "NAME",
            choices=SHIFTS,
            default="none",
        ),
    ] = None
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
        """Check settings; where they or the data say how many arrivals there are, ``stages`` need not."""
        open_ = {} if settings.get("order", RANDOM) == RANDOM else {"stages": None, "stage_size": None}
        if _is_list(settings.get("stage_size")):
            open_["stages"] = None
        return super().of({**open_, **settings}, where, recorded=recorded)

    @property
    def read_order(self) -> str | None:
        """The order that the data have to say; None where it is made here."""
        return None if self.order in MADE_ORDERS else self.order

    @field_validator("test")
    @classmethod
    def _of_classes_that_were_trained_on(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value == "next" and info.data.get("order") == CLASSES:
            raise InputError("test is next, but the next group of classes is unknown to the network; leave test out")
        return value

    @field_validator("stage_size")
    @classmethod
    def _of_random_draws(cls, value: int | str | None, info: ValidationInfo) -> Any:
        order = info.data.get("order")
        if value is not None and order == CLASSES:
            raise InputError("stage_size has no effect where classes arrive in groups; leave it out, and give --stages")
        return STAGE_SIZE if value is None and order == RANDOM else value

    @field_validator("stages")
    @classmethod
    def _as_many_as_sizes(cls, value: int | None, info: ValidationInfo) -> Any:
        size, order = info.data.get("stage_size"), info.data.get("order")
        if not _is_list(size):
            return STAGES if value is None and order in MADE_ORDERS else value
        named = len(str(size).split(","))
        if value not in (None, named):
            raise InputError(f"stages is {value}, but stage_size names {named}; make them agree, or leave out one")
        return named


def _is_list(size: Any) -> bool:
    return len(size) > 1 if isinstance(size, (list, tuple)) else isinstance(size, str) and "," in size


def sizes_of(settings: StreamSettings, available: int, beyond: int) -> list[int] | int | None:
    """The size of each arrival, ``beyond`` the stages included; of all, where nothing says how many there are.

    Args:
        settings: The stream's.
        available: Examples that may arrive; shares are of them.
        beyond: Arrivals that are not trained on; with sizes one by one, the last is repeated for them.

    Returns:
        None where sizes are not given.
    """
    if settings.stage_size is None:
        return None
    each = [_count(part, available) for part in str(settings.stage_size).split(",")]
    if settings.stages is None:
        return each[0]
    return [*each, *(each[-1] for _ in range(settings.stages + beyond - len(each)))]


def _count(part: str, available: int) -> int:
    return int(float(part[:-1]) / 100 * available + 1e-9) if part.endswith("%") else int(part)
