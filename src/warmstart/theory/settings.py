"""The settings of both of the theory's studies: the discrete framework, and gradient descent on patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import field_validator, model_validator

from warmstart.data.settings import PatchSettings
from warmstart.errors import InputError, one_of, require
from warmstart.grids.settings import Folder, ImageGridSettings
from warmstart.setting import Setting
from warmstart.settings import Settings
from warmstart.streams.settings import StreamSettings
from warmstart.training.recipe import Recipe

if TYPE_CHECKING:
    from warmstart.data.features_and_noise import PatchWorld

ORACLE = "oracle"
"""The method that knows which part of the data is noise."""

_LARGEST = 2_000_000_000
"""Bytes of memory for a study; more is taken for a typing error."""


def _require_memory(size: int, what: str, remedy: str) -> None:
    need = f"{what} need {size / 1e9:.1f} GB, more than {_LARGEST / 1e9:g} GB"
    require(size <= _LARGEST, f"{need}; {remedy}")


class DiscreteSettings(Settings):
    """The discrete framework: what examples carry, how many arrive, when a feature is learned.

    Shin et al., NeurIPS 2024 (arXiv 2410.23495); the defaults are the paper's.
    """

    classes: Annotated[int, PatchSettings.setting("classes")] = 2
    features: Annotated[int, PatchSettings.setting("features")] = 50
    examples: Annotated[
        int, StreamSettings.setting("stage_size", help="New examples a stage", metavar="N", default="")
    ] = 1000
    """Shared out equally among the classes."""
    stages: Annotated[int, StreamSettings.setting("stages", default="")] = 50
    gamma: Annotated[int, Setting("A feature is learned if at least N live examples carry it", "N", at_least=1)] = 50
    tau: Annotated[int, Setting("An example with N learned features has no gradient", "N", at_least=1)] = 3
    max_probability: Annotated[float, PatchSettings.setting("max_probability")] = 0.2
    seeds: Annotated[int, ImageGridSettings.setting("seeds")] = 10
    out: Annotated[
        Folder, ImageGridSettings.setting("out", help="Output folder", example="a folder such as out/theory")
    ] = "out/theory"

    @model_validator(mode="after")
    def _can_be_learned(self) -> Self:
        if self.examples < self.classes:
            raise InputError(
                f"examples is {self.examples}; each of the {self.classes} classes needs at least one a stage"
            )
        if self.gamma > self.examples:
            raise InputError(
                f"gamma is {self.gamma}, more than the {self.examples} examples of a stage: no feature could ever be "
                "learned from one; lower gamma or raise examples"
            )
        if self.tau > self.features:
            raise InputError(
                f"tau is {self.tau}, more than the {self.features} features that an example can have; "
                "lower tau or raise features"
            )
        size = self.features * self.examples * self.stages
        what = f"{self.stages} stages of {self.examples} examples with {self.features} features"
        _require_memory(size, what, "lower stages, examples or features")
        return self


class DescentSettings(PatchSettings):
    """How patch networks are trained in stages, and on what images."""

    examples: Annotated[int, DiscreteSettings.setting("examples", help="New images a stage")] = 40
    stages: Annotated[int, DiscreteSettings.setting("stages")] = 5
    filters: Annotated[int, Setting("Filters of a class", "N", at_least=1)] = 10
    lr: Annotated[float, Recipe.setting("lr")] = 0.02
    momentum: Annotated[float, Recipe.setting("momentum", help="Momentum")] = 0.9
    init_std: Annotated[float, Setting("Standard deviation of the first weights", "X", above=0)] = 0.01
    max_steps: Annotated[int, Setting("Most steps in a stage", "N", at_least=1)] = 1000
    """A stage ends earlier when every example is right with margin 1."""
    methods: Annotated[
        tuple[str, ...],
        ImageGridSettings.setting(
            "methods",
            help=f"Methods (warmstart methods lists them), and {ORACLE}",
            default=f"the paper's four, shrinking alone, {ORACLE}",
        ),
    ] = ("cold", "warm", "shrink-perturb", "shrink-perturb[noise_std=0.0]", "dash", ORACLE)
    """Shrink-perturb without noise is the control that shrinks all weights alike."""
    seeds: Annotated[int, DiscreteSettings.setting("seeds")] = 3
    out: Annotated[Folder, DiscreteSettings.setting("out")] = "out/theory"

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from warmstart.methods.registry import method_label, methods

        for name in value:
            if ":" not in name:
                one_of("method", name.partition("[")[0].strip(), [*methods(), ORACLE])
        labels = tuple(name if name == ORACLE else method_label(name) for name in value)
        cls.described()["methods"].check("methods", labels)
        return labels

    @model_validator(mode="after")
    def _every_class_arrives(self) -> Self:
        if self.examples < self.classes:
            raise InputError(f"examples is {self.examples}; each of {self.classes} classes needs at least one")
        size = 4 * self.stages * self.examples * self.grid**2 * (self.size + self.classes * self.filters)
        what = f"{self.stages} stages of {self.examples} images, seen by {self.filters} filters a class,"
        _require_memory(size, what, "lower stages, examples or filters")
        return self

    def make_world(self) -> PatchWorld:
        """The features and the noise that these settings describe."""
        from warmstart.data.features_and_noise import PatchWorld

        return PatchWorld(**{name: getattr(self, name) for name in PatchSettings.model_fields})
