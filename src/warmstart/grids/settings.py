"""The settings that every grid of runs has: which runs there are, and how and where they are computed."""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ValidationInfo, field_validator, model_validator

from warmstart.errors import InputError, require
from warmstart.launch import available_cores, launched_processes
from warmstart.runs.key import RunKey
from warmstart.runs.metric import ACCURACY, Metric
from warmstart.setting import MOST_NAMES, Setting
from warmstart.settings import RECORDED, Settings

if TYPE_CHECKING:
    import torch


def _folder_name(value: Any) -> Any:
    """A path as text; InputError if no file system, or not this one, could have a folder of that name."""
    text = os.fsdecode(value) if isinstance(value, os.PathLike) else value
    if isinstance(text, str):
        try:
            os.lstat(text)
        except OSError as error:  # what is not there yet is made, and what is in the way is said by the folder's lock
            too_long = error.errno == errno.ENAMETOOLONG
            require(not too_long, "out is too long a name for the file system; choose a shorter one")
        except ValueError as error:  # characters that no name may have
            raise InputError(f"out cannot be the name of a folder ({error}); choose another") from None
    return text


Folder = Annotated[str, BeforeValidator(_folder_name)]
"""The type of an output folder's setting; from Python it may be a path."""
EXECUTORS = ("local", "ray")
MOST_RUNS = 100_000
"""Of a grid."""
TRACKERS = ("tensorboard", "wandb", "mlflow")


class GridSettings(Settings):
    """The settings of every grid."""

    title: ClassVar[str] = "The grid"

    methods: Annotated[
        tuple[str, ...],
        Setting(
            "Methods (warmstart methods lists them), settings in brackets; or your own pkg.module:Class",
            "A,B,C",
            example="cold,warm,dash",
            role="extensible",
        ),
    ] = ("cold", "warm", "shrink-perturb", "dash")
    device: Annotated[str, Setting("auto, cpu, cuda, cuda:1, mps", "NAME", example="auto")] = "auto"
    threads: Annotated[int | str, Setting("Threads a run", "N", auto=True, at_least=1, at_most=1024)] = "auto"
    jobs: Annotated[
        int | str, Setting("Parallel processes", "N", auto=True, at_least=1, at_most=1024, role="running")
    ] = "auto"
    executor: Annotated[str, Setting("Here, or on many machines", "NAME", choices=EXECUTORS, role="running")] = "local"
    ray_address: Annotated[
        str | None, Setting("The cluster: auto, HOST:PORT, ray://HOST:PORT", "ADDRESS", example="auto", role="running")
    ] = None
    gpus_per_run: Annotated[
        float, Setting("With ray: GPUs a run, also a fraction", "X", at_least=0, role="running")
    ] = 1.0
    track: Annotated[tuple[str, ...], Setting("Trackers", "A,B", choices=TRACKERS, noun="tracker", role="running")] = ()
    out: Annotated[
        Folder,
        Setting(
            "Output folder; resumed if it exists",
            "DIR",
            example="a folder such as out/compare",
            role="running",
        ),
    ] = "out/compare"

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.context and info.context[RECORDED]:
            return value
        labels = tuple(map(cls.method_label, value))
        cls.described()["methods"].check("methods", labels)
        return labels

    @classmethod
    def method_label(cls, text: str) -> str:
        """A method as in results.csv; InputError if there is no such method."""
        from warmstart.methods.registry import method_label

        return method_label(text)

    @field_validator("ray_address", "gpus_per_run")
    @classmethod
    def _with_ray(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[info.field_name or ""].default
        if value != default and info.data.get("executor") == "local":
            raise InputError(f"{info.field_name} is {value}, which has no effect without Ray; add --executor ray")
        return value

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        runs = len(self.arms) * len(self.seed_numbers) * len(self.optimizer_names)
        require(runs <= MOST_RUNS, f"methods x seeds are {runs:,} runs; ask for at most {MOST_RUNS:,}")
        return self

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return ACCURACY

    @property
    def optimizer_names(self) -> Sequence[str]:
        """The optimizers of the grid; one empty name where the training function makes its own."""
        return ("",)

    @property
    @abstractmethod
    def seed_numbers(self) -> Sequence[int]:
        """The seeds of the grid, with those that may be added."""

    @property
    def looks(self) -> Sequence[int]:
        """With how many seeds results are looked at: with all, unless seeds are added until a verdict is decided."""
        return (len(self.seed_numbers),)

    @property
    def arms(self) -> Sequence[str]:
        """What is run, as in results.csv: the methods, unless others follow from them."""
        return self.methods

    def runs(self, seeds: int | None = None) -> list[RunKey]:
        """The runs of the first so many seeds, or of all that there may be; in the order in which they are computed.

        Returns:
            Seed by seed, so that a grid that is stopped has all methods and optimizers of the seeds before.
        """
        return [
            RunKey(method, seed, optimizer)
            for seed in self.seed_numbers[:seeds]
            for optimizer in self.optimizer_names
            for method in self.arms
        ]

    @property
    def may_use_workers(self) -> bool:
        """Whether the runs may be computed in worker processes here, as far as the settings alone tell."""
        on_cpu = self.device == "cpu" or (self.device == "auto" and self.jobs == "auto")
        alone = self.executor == "local" and launched_processes() == 1 and len(self.runs()) > 1
        several = available_cores() > 1 if self.jobs == "auto" else self.jobs != 1
        return alone and several and (on_cpu or self.jobs != "auto")

    def resolved_threads(self) -> int:
        """Threads of a run: the setting, or with ``auto`` the cores divided among the runs, at least 1."""
        if isinstance(self.threads, int):
            return self.threads
        # Not by `jobs`: threads may change the last digits, and `jobs` must not.
        return max(1, available_cores() // (len(self.arms) * self.looks[0]))

    def resolved_device(self) -> torch.device:
        """The device to train on; with ``auto`` the accelerator if there is one, else the CPU."""
        from warmstart.training.devices import find_device

        return find_device(self.device)


class ImageGridSettings(GridSettings):
    """The settings of a grid on images: a network by name, and seeds 0 to N-1."""

    model: Annotated[
        str,
        Setting(
            "small-cnn, mlp, resnet18, vgg16, vit, or your own pkg.module:factory; settings follow in brackets",
            "NAME",
            example="small-cnn",
        ),
    ] = "small-cnn"
    seeds: Annotated[
        int, Setting("Repetitions, seeds 0 to N-1", "N", at_least=1, at_most=MOST_NAMES, role="extensible")
    ] = 5

    @classmethod
    def method_label(cls, text: str) -> str:
        """A method as in results.csv, perhaps with a rate or weight decay of its own."""
        from warmstart.runs.own_recipe import label_with_recipe

        return label_with_recipe(text)

    @property
    def seed_numbers(self) -> Sequence[int]:
        """0 to N-1."""
        return range(self.seeds)
