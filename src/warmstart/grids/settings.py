"""The settings that every grid of runs has: which runs there are, and how and where they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ValidationInfo, field_validator

from warmstart.errors import InputError
from warmstart.runs.key import RunKey
from warmstart.runs.metric import ACCURACY, Metric
from warmstart.settings import RECORDED, Setting, Settings
from warmstart.training.launch import available_cores, launched_processes

if TYPE_CHECKING:
    import torch

EXECUTORS = ("local", "ray")
TRACKERS = ("tensorboard", "wandb", "mlflow")


class GridSettings(Settings):
    """What every grid has."""

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
    threads: Annotated[int | str, Setting("Threads a run", "N", auto=True)] = "auto"
    jobs: Annotated[int | str, Setting("Parallel processes", "N", auto=True, role="running")] = "auto"
    executor: Annotated[str, Setting("Here, or on many machines", "NAME", choices=EXECUTORS, role="running")] = "local"
    ray_address: Annotated[
        str | None, Setting("The cluster: auto, HOST:PORT, ray://HOST:PORT", "ADDRESS", example="auto", role="running")
    ] = None
    gpus_per_run: Annotated[
        float, Setting("With ray: GPUs a run, also a fraction", "X", at_least=0, role="running")
    ] = 1.0
    track: Annotated[tuple[str, ...], Setting("Trackers", "A,B", choices=TRACKERS, noun="tracker", role="running")] = ()
    out: Annotated[
        str,
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
        from warmstart.methods.registry import method_label

        labels = tuple(method_label(text) for text in value)
        cls.described()["methods"].check("methods", labels)
        return labels

    @field_validator("ray_address", "gpus_per_run")
    @classmethod
    def _with_ray(cls, value: Any, info: ValidationInfo) -> Any:
        usual = cls.model_fields[info.field_name or ""].default
        if value != usual and info.data.get("executor") == "local":
            raise InputError(f"{info.field_name} is {value}, which only Ray looks at; add --executor ray")
        return value

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return ACCURACY

    @property
    def optimizer_names(self) -> Sequence[str]:
        """The optimizers of the grid; one without a name where training makes its own."""
        return ("",)

    @property
    def seed_numbers(self) -> Sequence[int]:
        """The seeds of the grid."""
        raise NotImplementedError

    def runs(self) -> list[RunKey]:
        """The runs of the grid.

        Returns:
            Seed by seed, each with all optimizers and methods: a grid that is stopped has whole seeds.
        """
        return [
            RunKey(method, seed, optimizer)
            for seed in self.seed_numbers
            for optimizer in self.optimizer_names
            for method in self.methods
        ]

    @property
    def may_use_workers(self) -> bool:
        """Whether the grid could be computed by processes of this machine, as far as settings tell."""
        on_cpu = self.device == "cpu" or (self.device == "auto" and self.jobs == "auto")
        alone = self.executor == "local" and launched_processes() == 1 and len(self.runs()) > 1
        several = available_cores() > 1 if self.jobs == "auto" else self.jobs != 1
        return alone and several and (on_cpu or self.jobs != "auto")

    def resolved_threads(self) -> int:
        """Threads a run computes with.

        Returns:
            The setting, or with ``auto`` the cores shared out among the runs, at least one each. It does not
            depend on ``jobs``, so that numbers do not either.
        """
        if isinstance(self.threads, int):
            return self.threads
        return max(1, available_cores() // (len(self.methods) * len(self.seed_numbers)))

    def resolved_device(self) -> torch.device:
        """The device that is trained on.

        Returns:
            The setting, or with ``auto`` the accelerator that is there, else the CPU.

        Raises:
            InputError: If there is no such device here.
        """
        from warmstart.training.devices import find_device

        return find_device(self.device)


class ImageGridSettings(GridSettings):
    """What a grid on images has: a network by name, and seeds 0 to N-1."""

    title: ClassVar[str] = "The grid"

    model: Annotated[
        str,
        Setting("small-cnn, mlp, resnet18, vgg16, or your own pkg.module:factory", "NAME", example="small-cnn"),
    ] = "small-cnn"
    seeds: Annotated[int, Setting("Repetitions, seeds 0 to N-1", "N", at_least=1, role="extensible")] = 5

    @property
    def seed_numbers(self) -> Sequence[int]:
        """As many as were asked for."""
        return range(self.seeds)
