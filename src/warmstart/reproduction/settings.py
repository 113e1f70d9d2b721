"""The settings of `warmstart reproduce`."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from warmstart.data.paper_data import PAPER_DATA
from warmstart.errors import InputError, at_least_one, one_of
from warmstart.grids.settings import GridConfig
from warmstart.methods.registry import split_names
from warmstart.reproduction.protocols import SUMMARIES, TINY, StageTraining, stage_training
from warmstart.runs.image_task import TrainingProtocol
from warmstart.training.optimizers import OPTIMIZERS


class ReproduceConfig(GridConfig):
    """Which of the paper's tables is reproduced, and how much of it."""

    dataset: str
    data: str | None = None
    """A path; None takes the hub."""
    protocol: str = "incremental"
    model: str = "resnet18"
    methods: tuple[str, ...] = ("cold", "warm", "shrink-perturb", "dash", "fire")
    optimizers: tuple[str, ...] = ("sgd", "sam")
    stages: int | None = None
    stage_size: int | None = None
    batch_size: int | None = None
    max_epochs: int | None = None

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        return one_of("data set", value, tuple(PAPER_DATA))

    @field_validator("protocol")
    @classmethod
    def _known_protocol(cls, value: str) -> str:
        return one_of("protocol", value, tuple(SUMMARIES))

    @field_validator("optimizers", mode="before")
    @classmethod
    def _split_optimizers(cls, value: Any) -> Any:
        return tuple(split_names(value)) if isinstance(value, str) else value

    @field_validator("optimizers")
    @classmethod
    def _known_optimizers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise InputError("optimizers is empty; name at least one, such as sgd,sam")
        for name in value:
            one_of("optimizer", name, OPTIMIZERS)
            if value.count(name) > 1:
                raise InputError(f"optimizers: '{name}' appears twice; name each once")
        return value

    @field_validator("stages", "stage_size", "batch_size", "max_epochs")
    @classmethod
    def _at_least_one(cls, value: int | None, info: Any) -> int | None:
        return value if value is None else at_least_one(info.field_name, value)

    @property
    def training(self) -> StageTraining:
        """The protocol for the data set, before any of its numbers is replaced."""
        return stage_training(self.protocol, self.dataset)

    @property
    def is_the_papers(self) -> bool:
        """Whether the published figures are of these settings; TF32 counts as fp32."""
        training = self.training
        named = (self.protocol, self.model) == ("incremental", "resnet18") and self.precision != "bf16"
        return named and all(
            value in (None, usual)
            for value, usual in (
                (self.stages, training.stages),
                (self.stage_size, training.stage_size),
                (self.batch_size, training.batch_size),
                (self.max_epochs, training.max_epochs),
            )
        )

    def settled(self) -> TrainingProtocol:
        """How every run is trained.

        Returns:
            The protocol, with the numbers that were replaced.
        """
        training = self.training
        return TrainingProtocol(
            model=self.model,
            stages=self.stages or training.stages,
            stage_size=self.stage_size or training.stage_size,
            recipe=training.recipe(self.batch_size, self.max_epochs, self.precision),
            lr=training.lr,
            weight_decay=training.weight_decay,
            device=self.device,
            model_settings=training.model_settings.get(self.model, {}),
        )


def default_seeds(dataset: str) -> int:
    """How many seeds the paper's figures seem to rest on.

    Args:
        dataset: A key of `PAPER_DATA`.

    Returns:
        5, and 3 for Tiny-ImageNet.
    """
    return 3 if dataset == TINY else 5
