"""The settings of a comparison, and its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from warmstart.data.settings import DataSettings
from warmstart.errors import InputError
from warmstart.grids.named_recipe import NamedRecipe
from warmstart.grids.reading import ReadingSettings
from warmstart.grids.record import Record
from warmstart.grids.settings import GridSettings, ImageGridSettings
from warmstart.runs.metric import Metric
from warmstart.setting import MOST_NAMES, Setting
from warmstart.settings import Settings
from warmstart.streams.settings import StreamSettings


class DiagnosisSettings(Settings):
    """What is measured besides."""

    title: ClassVar[str] = "The diagnosis"

    diagnose: Annotated[
        bool,
        Setting("Measure plasticity at each stage's start, into diagnostics.csv and the report", "", role="running"),
    ] = False


class TuneSettings(Settings):
    """How methods are tuned before they are compared."""

    title: ClassVar[str] = "Tuning"

    tune: Annotated[
        int | None,
        Setting(
            "Tune each method with N trials first: rate, weight decay and the method's own settings",
            "N",
            at_least=2,
            at_most=1000,
        ),
    ] = None
    """Trials are judged on a part of the training data, and the chosen settings then tested on fresh seeds."""


class CompareSettings(
    ReadingSettings,
    TuneSettings,
    DiagnosisSettings,
    ImageGridSettings,
    NamedRecipe,
    StreamSettings,
    DataSettings,
):
    """The settings of `warmstart compare`; a YAML file has the same keys."""

    chosen: Mapping[str, str] = Field(default_factory=dict)
    """Once methods are tuned: method -> what was chosen of it, as in results.csv. It is told from the trials anew at
    each start."""

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "", *, recorded: bool = False) -> Self:
        """Check settings; where methods are tuned, the test part is one that no trial sees."""
        tuned = settings.get("tune") is not None and settings.get("test") is None
        return super().of({**settings, **({"test": "fixed"} if tuned else {})}, where, recorded=recorded)

    @model_validator(mode="after")
    def _fits_the_decision(self) -> Self:
        self.require_most(self.seeds)
        if self.tune is not None and self.test == "rotate":
            raise InputError("test is rotate, but tuning needs a test part that no trial sees; leave test out")
        return self

    def with_chosen(self, chosen: Mapping[str, str]) -> Self:
        """The settings once methods are tuned."""
        return self.model_copy(update={"chosen": chosen})

    @property
    def arms(self) -> Sequence[str]:
        """What is run: the methods; once they are tuned, those that were chosen, and all as they were given."""
        return tuple(dict.fromkeys((*self.chosen.values(), *self.methods)))

    @property
    def optimizer_names(self) -> Sequence[str]:
        """The one optimizer."""
        return (self.optimizer,)

    @property
    def seed_numbers(self) -> Sequence[int]:
        """0 to N-1, with those that may be added."""
        return range(self.max_seeds or self.seeds)

    @property
    def looks(self) -> Sequence[int]:
        """With how many seeds results are looked at."""
        return self.looks_from(self.seeds)


TUNING_SEED = MOST_NAMES
"""Of all trials; a comparison's own seeds are below it."""


class TuningSettings(CompareSettings):
    """The settings of a comparison's trials, which are a grid of their own."""

    @property
    def seed_numbers(self) -> Sequence[int]:
        """One, which no comparison has."""
        return (TUNING_SEED,)

    @property
    def looks(self) -> Sequence[int]:
        """One, at all trials."""
        return (1,)


class TuningRecord(Record[TuningSettings]):
    """The config.yaml of a comparison's trials."""

    kind: ClassVar[str] = "tuning"
    keeps_weights: ClassVar[bool] = False
    trials: dict[str, tuple[str, ...]]
    """Method as it was given -> its trials, as in results.csv, the first as it was given."""
    judged_on: str
    """Which examples, in words."""


class CompareRecord(Record[CompareSettings]):
    """The config.yaml of a comparison on images."""

    kind: ClassVar[str] = "compare"
    notes: tuple[str, ...] = ()
    """What was noticed while the data were read: what was left out, what is not tested."""
    stream: str = ""
    """What arrives and what is tested, in words."""
    called: str = "warmstart compare"
    """The function or command that started it; only a command can be repeated by a command."""


class FunctionSettings(ReadingSettings, GridSettings):
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

    @model_validator(mode="after")
    def _not_fewer_at_most(self) -> Self:
        self.require_most(len(self.seeds))
        return self

    @property
    def seed_numbers(self) -> Sequence[int]:
        """The seeds as they were given, with those that may be added: 0 to N-1."""
        return self.seeds if self.max_seeds is None else range(self.max_seeds)

    @property
    def looks(self) -> Sequence[int]:
        """With how many seeds results are looked at."""
        return self.looks_from(len(self.seeds))

    @property
    def metric(self) -> Metric:
        """The caller's own metric."""
        return Metric(self.metric_name, self.higher_is_better)


class FunctionsRecord(Record[FunctionSettings]):
    """The config.yaml of a comparison on a caller's own functions."""

    kind: ClassVar[str] = "ws.compare"
    model_fingerprint: str
