"""The settings of `warmstart retrain`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationInfo, field_validator

from warmstart.data.settings import ImageSettings
from warmstart.grids.named_recipe import NamedRecipe
from warmstart.grids.reading import ReadingSettings
from warmstart.grids.settings import Folder, GridSettings, ImageGridSettings
from warmstart.launch import available_cores
from warmstart.setting import Setting
from warmstart.settings import RECORDED, Settings
from warmstart.training.recipe import Recipe

PROMOTIONS = ("margin", "better", "always")
NEW_CLASSES = ("grow", "refuse")
EXPORTS = ("onnx", "torch")
REGISTRIES = ("mlflow",)


class GateSettings(Settings):
    """What decides whether the candidate goes into service."""

    title: ClassVar[str] = "The gate"

    test: Annotated[
        str | None,
        Setting(
            "Images to test on; their copies in --data are not trained on",
            "PATH",
            example="a path",
            default="a fifth of --data, for ever",
        ),
    ] = None
    promote: Annotated[
        str,
        Setting(
            "Not worse than current and the best so far by more than --margin; better by a paired test; or always",
            "RULE",
            choices=PROMOTIONS,
        ),
    ] = "margin"
    margin: Annotated[float, ReadingSettings.setting("margin", role="numbers")] = 0.005
    max_churn: Annotated[
        float | None,
        Setting(
            "Reject if more of the held-out examples, that current has right, become wrong",
            "X|X%",
            at_least=0,
            at_most=1,
            percent=True,
            default="any",
        ),
    ] = None
    max_class_loss: Annotated[
        float | None,
        Setting(
            "Reject if a class loses more of its accuracy", "X|X%", at_least=0, at_most=1, percent=True, default="any"
        ),
    ] = None
    cold_every: Annotated[
        int | None,
        Setting(
            "At every Nth stage also train from scratch, beside, and say whether the warm line has fallen behind",
            "N",
            at_least=1,
            default="never",
        ),
    ] = None


class NightSettings(Settings):
    """Where the state lies, and what happens around training; none of it changes a number."""

    title: ClassVar[str] = "The state and what follows"

    state: Annotated[Folder, Setting("The state's folder", "DIR", example="a folder", role="running")]
    keep: Annotated[
        int, Setting("Promoted stages whose weights are kept, and newest of all stages", "N", at_least=1, role="limit")
    ] = 5
    max_bad: Annotated[
        float,
        Setting(
            "Stop, and change nothing, if more of what is new cannot be read",
            "X|X%",
            at_least=0,
            at_most=1,
            percent=True,
            default="1%",
            role="reading",
        ),
    ] = 0.01
    new_classes: Annotated[
        str,
        Setting(
            "What a class that is new does: the head grows by it; or the call stops, and changes nothing",
            "RULE",
            choices=NEW_CLASSES,
            role="reading",
        ),
    ] = "grow"
    export: Annotated[
        str | None,
        Setting("Also write what is promoted for other programs", "FORM", choices=EXPORTS, role="running"),
    ] = None
    registry: Annotated[
        str | None,
        Setting("Also register what is promoted", "NAME", choices=REGISTRIES, noun="registry", role="running"),
    ] = None
    registry_name: Annotated[
        str | None,
        Setting("Its name there", "NAME", example="a name", default="the name of the state's folder", role="running"),
    ] = None
    on_promoted: Annotated[
        str | None,
        Setting("Run this in a shell when another model is in service", "CMD", example="a command", role="running"),
    ] = None
    on_failed: Annotated[
        str | None,
        Setting(
            "Run this in a shell when a candidate is rejected or the call fails",
            "CMD",
            example="a command",
            role="running",
        ),
    ] = None
    log_json: Annotated[
        str | None, Setting("Append a line of JSON for each event", "FILE", example="a file", role="running")
    ] = None
    metrics: Annotated[
        str | None, Setting("Write the metrics for Prometheus", "FILE", example="a file", role="running")
    ] = None
    wait: Annotated[bool, Setting("If the state is in use, wait until it is free", "", role="running")] = False


class RetrainSettings(NightSettings, GateSettings, NamedRecipe, ImageSettings):
    """The settings of `warmstart retrain`."""

    title: ClassVar[str] = "The network"

    data: Annotated[
        str,
        ImageSettings.setting(
            "data",
            help="Images by class in folders, also of months; a CSV of paths and labels; parquet or .npz shards",
            metavar="PATH",
            example="a folder",
            role="reading",
        ),
    ]
    model: Annotated[str, ImageGridSettings.setting("model")] = "small-cnn"
    method: Annotated[
        str,
        GridSettings.setting(
            "methods",
            help="Method (warmstart methods lists them), settings in brackets; or your own pkg.module:Class",
            metavar="NAME",
            example="dash",
            role="numbers",
        ),
    ] = "dash"
    seed: Annotated[int, Setting("Seed of all that is random", "N", at_least=0)] = 0
    device: Annotated[str, GridSettings.setting("device", role="running")] = "auto"
    threads: Annotated[int | str, GridSettings.setting("threads", help="Threads")] = "auto"

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str, info: ValidationInfo) -> str:
        if info.context and info.context[RECORDED]:
            return value
        from warmstart.methods.registry import method_label

        return method_label(value)

    @classmethod
    def of_protocol(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe of the protocol; its stream is what arrives."""
        return {key: value for key, value in super().of_protocol(given).items() if key in Recipe.described()}

    def settled(self) -> Self:
        """With the number of threads filled in, so that a killed night goes on with the same."""
        return self if isinstance(self.threads, int) else self.model_copy(update={"threads": available_cores()})

    def to_json(self) -> str:
        """All settings as the index keeps them."""
        return json.dumps(self.model_dump(mode="json", include=set(self.described())))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Those that `to_json` wrote, checked then; nothing that they name is imported."""
        return cls.of(json.loads(text), recorded=True)

    def as_of_stage(self, text: str) -> Self:
        """Those that a stage arrived with, as `to_json` wrote them; what changes no number is as in these."""
        then = type(self).from_json(text)
        now = {name: getattr(self, name) for name in then.names_of("running", "limit", "reading")}
        return then.model_copy(update=now)

    def numbers(self) -> dict[str, Any]:
        """The settings that the candidate and the verdict on it follow from, but for rounding."""
        return self.model_dump(mode="json", include={*self.names_of("numbers")} - {"threads"})
