"""The settings of a comparison, and its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationInfo, field_validator

from warmstart.data.settings import DataSettings
from warmstart.grids.record import Record
from warmstart.grids.settings import GridSettings, ImageGridSettings
from warmstart.protocols.registry import protocols
from warmstart.runs.metric import Metric
from warmstart.settings import Setting, Settings
from warmstart.streams.settings import StreamSettings
from warmstart.training.recipe import Recipe


class ReadingSettings(Settings):
    """The setting that decides how results are read."""

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


class NamedRecipe(Recipe):
    """A recipe, or a protocol that stands for a whole one."""

    protocol: Annotated[
        str | None,
        Setting(
            "A whole recipe and stream by name, which single flags then change",
            "NAME",
            choices=tuple(protocols()),
            default="none",
            role="running",
        ),
    ] = None
    """It decides nothing by itself: what it stands for is recorded."""

    @classmethod
    def of_protocol(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the protocol stands for; nothing where it is unknown, which its own check says."""
        named = protocols().get(str(given.get("protocol")))
        return {} if named is None else named.settings(given)

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "", *, recorded: bool = False) -> Self:
        """Check settings, with what a protocol stands for where they do not say it."""
        return super().of({**cls.of_protocol(settings), **settings}, where, recorded=recorded)


class CompareSettings(ReadingSettings, ImageGridSettings, NamedRecipe, StreamSettings, DataSettings):
    """The settings of `warmstart compare`; a YAML file has the same keys."""

    @property
    def optimizer_names(self) -> Sequence[str]:
        """The one optimizer."""
        return (self.optimizer,)


class CompareRecord(Record[CompareSettings]):
    """The config.yaml of a comparison on images."""

    kind: ClassVar[str] = "compare"
    notes: tuple[str, ...] = ()
    """What was noticed while the data were read: what was left out, what is not tested."""
    stream: str = ""
    """What arrives and what is tested, in words."""
    called: str = "warmstart compare"
    """The function or command that started it; only a command can be repeated by a command."""


class FunctionSettings(GridSettings):
    """The arguments of `ws.compare` that are no functions."""

    data: Annotated[str, Setting("What the data is called", "NAME", example="some name")]
    model: Annotated[str, Setting("The network's class", "NAME", example="some name")]
    seeds: Annotated[tuple[int, ...], Setting("Repetitions", "A,B", at_least=0, example="0", role="extensible")]
    stages: Annotated[int, Setting("Arrivals of data", "N", at_least=1)]
    metric_name: Annotated[str, Setting("What is measured", "NAME", example="accuracy")] = "accuracy"
    higher_is_better: Annotated[bool, Setting("Whether more of it is better", "YES|NO")] = True
    margin: Annotated[float, Setting("Loss that is acceptable", "X", at_least=0, role="reading")] = 0.0

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return value  # the caller's own methods have names that only the caller knows

    @property
    def seed_numbers(self) -> Sequence[int]:
        """The seeds as they were given."""
        return self.seeds

    @property
    def metric(self) -> Metric:
        """The caller's own metric."""
        return Metric(self.metric_name, self.higher_is_better)


class FunctionsRecord(Record[FunctionSettings]):
    """The config.yaml of a comparison on a caller's own functions."""

    kind: ClassVar[str] = "ws.compare"
    model_fingerprint: str
