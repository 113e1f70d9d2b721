"""The settings of `warmstart reproduce`, and the record of a reproduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from warmstart.data.paper_sets import PAPER_DATA, TINY, Constants
from warmstart.grids.record import Record
from warmstart.grids.settings import Folder, ImageGridSettings
from warmstart.reproduction.protocols import SUMMARIES, PublishedProtocol, find_protocol
from warmstart.setting import Setting
from warmstart.streams.settings import StreamSettings
from warmstart.training.recipe import Recipe

_PROTOCOLS = "the protocol's"


class ReproduceSettings(ImageGridSettings):
    """The settings of `warmstart reproduce`: which of the paper's tables, and how much of it."""

    dataset: Annotated[str, Setting("Data set", "DATASET", choices=tuple(PAPER_DATA), noun="data set")]
    data: Annotated[
        str | None,
        Setting(
            "The data, as it is downloaded or as parquet; without it, the hub",
            "PATH",
            example="some, or leave it out",
            default="the hub",
            role="reading",
        ),
    ] = None
    protocol: Annotated[
        str,
        Setting(
            "The main table's, the appendix's, two stages, or ours for two cores", "NAME", choices=tuple(SUMMARIES)
        ),
    ] = "incremental"
    model: Annotated[str, ImageGridSettings.setting("model")] = "resnet18"
    methods: Annotated[tuple[str, ...], ImageGridSettings.setting("methods", default="the paper's four, and fire")] = (
        *("cold", "warm", "shrink-perturb", "dash", "fire"),
    )
    optimizers: Annotated[
        tuple[str, ...],
        Recipe.setting("optimizer", help="Optimizers", metavar="A,B", example="sgd,sam", role="extensible"),
    ] = ("sgd", "sam")
    seeds: Annotated[int, ImageGridSettings.setting("seeds", default="5; tiny-imagenet 3")] = 5
    stages: Annotated[
        int | None, StreamSettings.setting("stages", help="Only the first N stages", default=_PROTOCOLS)
    ] = None
    stage_size: Annotated[
        int | None,
        StreamSettings.setting("stage_size", help="New examples a stage", metavar="N", default=_PROTOCOLS),
    ] = None
    batch_size: Annotated[int | None, Recipe.setting("batch_size", default=_PROTOCOLS)] = None
    max_epochs: Annotated[int | None, Recipe.setting("max_epochs", default=_PROTOCOLS)] = None
    precision: Annotated[str, Recipe.setting("precision")] = "tf32"
    out: Annotated[Folder, ImageGridSettings.setting("out", default="out/reproduce-DATASET")] = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "", *, recorded: bool = False) -> Self:
        """Check settings; seeds and folder follow from the data set where they are not given."""
        dataset = settings.get("dataset")
        usual = {"seeds": default_seeds(str(dataset)), "out": f"out/reproduce-{dataset}"}
        return super().of({**usual, **settings}, where, recorded=recorded)

    @classmethod
    def method_label(cls, text: str) -> str:
        """A method as in results.csv, where ``dash`` is the paper's."""
        from warmstart.reproduction.papers_methods import papers_method
        from warmstart.runs.own_recipe import label_with_recipe

        return label_with_recipe(text, papers_method)

    @property
    def optimizer_names(self) -> Sequence[str]:
        """The optimizers of the grid."""
        return self.optimizers

    @property
    def published_protocol(self) -> PublishedProtocol:
        """The protocol for the data set, before flags replace any of its numbers."""
        return find_protocol(self.protocol, self.dataset)

    @property
    def is_the_papers(self) -> bool:
        """Whether the published figures are of these settings; TF32 counts as fp32."""
        named = (self.protocol, self.model) == ("incremental", "resnet18") and self.precision != "bf16"
        usual = _numbers(self.published_protocol)
        return named and all(getattr(self, name) in (None, value) for name, value in usual.items())

    def with_protocol(self) -> Self:
        """The settings with the protocol's numbers where none were given."""
        usual = _numbers(self.published_protocol)
        given = {name: getattr(self, name) for name in usual if getattr(self, name) is not None}
        return self.model_copy(update={**usual, **given})

    def stream(self) -> StreamSettings:
        """The arrivals of data; only after `with_protocol`."""
        return StreamSettings.of({"stages": self.stages, "stage_size": self.stage_size})

    def recipe(self) -> Recipe:
        """How a stage is trained; only after `with_protocol`."""
        own = {name: getattr(self, name) for name in ("batch_size", "max_epochs", "precision")}
        return self.published_protocol.recipe.model_copy(update=own)


def _numbers(protocol: PublishedProtocol) -> dict[str, int | str | None]:
    """The protocol's numbers that a flag may replace."""
    stream, recipe = protocol.stream, protocol.recipe
    return {
        "stages": stream.stages,
        "stage_size": stream.stage_size,
        "batch_size": recipe.batch_size,
        "max_epochs": recipe.max_epochs,
    }


def default_seeds(dataset: str) -> int:
    """How many seeds the paper's figures seem to have: 5, and 3 for Tiny-ImageNet."""
    return 3 if dataset == TINY else 5


class ReproductionRecord(Record[ReproduceSettings]):
    """The config.yaml of a reproduction; its settings have the protocol's numbers filled in."""

    kind: ClassVar[str] = "reproduce"
    recipe: Recipe
    """The whole recipe, so that a change of the protocol in a later version is noticed."""
    model_settings: dict[str, Any]
    constants: Constants | None = None
    """What images are normalised by; None: by the training part's mean and standard deviation."""
    notes: tuple[str, ...] = ()
    """Why ours cannot be compared with the published figures."""
