"""The settings of a grid of runs and of `warmstart compare`, each of them checked before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from warmstart.errors import InputError, at_least_one, nearest, one_of, within
from warmstart.methods.registry import parse_method, split_names
from warmstart.training.devices import PRECISIONS, available_cores, find_device
from warmstart.training.optimizers import OPTIMIZERS

RECORDED = "recorded"
"""Where config.yaml keeps what is not a setting: versions, the data's fingerprint."""
HOW_IT_RUNS = frozenset({"out", "jobs", "executor", "ray_address", "gpus_per_run", "track"})
"""Settings that another machine need not share: they change no number of a run."""
LARGEST_IMAGE = 4096
"""Of --image-size: far above what these networks are made for; beyond, a slip of the keys."""
EXECUTORS = ("local", "ray")
TRACKERS = ("tensorboard", "wandb", "mlflow")


class GridConfig(BaseModel):
    """What every grid of runs has: methods and seeds, and how and where it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    model: str = "small-cnn"
    methods: tuple[str, ...] = ("cold", "warm", "shrink-perturb", "dash")
    seeds: int = 5
    precision: str = "tf32"
    device: str = "auto"
    threads: int | str = "auto"
    jobs: int | str = "auto"
    executor: str = "local"
    ray_address: str | None = None
    gpus_per_run: float = 1.0
    track: tuple[str, ...] = ()
    out: str = "out/compare"

    @field_validator("*", mode="before")
    @classmethod
    def _not_yes_or_no(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool):  # YAML's yes and on, which would count as 1
            raise InputError(f"{info.field_name} is {value}; no key is a yes or no, give its number or name")
        return value

    @field_validator("methods", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(split_names(value)) if isinstance(value, str) else value

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise InputError("methods is empty; name at least one, such as cold,warm,dash")
        labels = tuple(method_label(text) for text in value)
        for label in labels:
            if labels.count(label) > 1:
                raise InputError(f"methods: '{label}' appears twice; name each once")
        return labels

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, value: int) -> int:
        return at_least_one("seeds", value)

    @field_validator("precision")
    @classmethod
    def _known_precision(cls, value: str) -> str:
        return one_of("precision", value, PRECISIONS)

    @field_validator("executor")
    @classmethod
    def _known_executor(cls, value: str) -> str:
        return one_of("executor", value, EXECUTORS)

    @field_validator("gpus_per_run")
    @classmethod
    def _share_of_gpus(cls, value: float) -> float:
        return within("gpus_per_run", value, value >= 0, "at least 0")

    @field_validator("ray_address", "gpus_per_run")
    @classmethod
    def _with_ray(cls, value: Any, info: Any) -> Any:
        usual = cls.model_fields[info.field_name].default
        if value != usual and info.data.get("executor") == "local":
            raise InputError(f"{info.field_name} is {value}, which only Ray looks at; add --executor ray")
        return value

    @field_validator("track", mode="before")
    @classmethod
    def _split_trackers(cls, value: Any) -> Any:
        return tuple(split_names(value)) if isinstance(value, str) else value

    @field_validator("track")
    @classmethod
    def _known_trackers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            one_of("tracker", name, TRACKERS)
            if value.count(name) > 1:
                raise InputError(f"track: '{name}' appears twice; name each once")
        return value

    @field_validator("threads", "jobs", mode="before")
    @classmethod
    def _auto_or_count(cls, value: Any, info: Any) -> int | str:
        text = str(value)
        if text != "auto" and not (text.isdecimal() and int(text) >= 1):
            raise InputError(f"{info.field_name} is '{value}'; it must be 'auto' or a whole number, at least 1")
        return text if text == "auto" else int(text)

    @field_validator("out", "data", check_fields=False)
    @classmethod
    def _named(cls, value: str | None, info: Any) -> str | None:
        if value is not None and not value.strip():
            what = {"out": "the output folder, such as out/compare", "data": "some, or leave it out"}
            raise InputError(f"{info.field_name} is empty; name {what[info.field_name]}")
        return value

    def resolved_threads(self) -> int:
        """Threads a run computes with.

        Returns:
            The setting, or with ``auto`` the cores shared out among the runs, at least one each. It does not
            depend on ``jobs``, so that numbers do not either.
        """
        if isinstance(self.threads, int):
            return self.threads
        return max(1, available_cores() // (len(self.methods) * self.seeds))

    def resolved_device(self) -> torch.device:
        """The device that is trained on.

        Returns:
            The setting, or with ``auto`` the accelerator that is there, else the CPU.

        Raises:
            InputError: If there is no such device here.
        """
        return find_device(self.device)


class CompareConfig(GridConfig):
    """What `warmstart compare` compares, and how; the YAML file has the same keys."""

    data: str = "digits"
    optimizer: str = "sgd"
    stages: int = 6
    stage_size: int = 50
    batch_size: int = 16
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    until: float = 0.999
    max_epochs: int = 10_000
    image_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    margin: float = 0.0

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        return one_of("optimizer", value, OPTIMIZERS)

    @field_validator("stages", "stage_size", "batch_size", "max_epochs", "image_size")
    @classmethod
    def _at_least_one(cls, value: int | None, info: Any) -> int | None:
        return value if value is None else at_least_one(info.field_name, value)

    @field_validator("image_size")
    @classmethod
    def _not_absurd(cls, value: int | None) -> int | None:
        if value is not None and value > LARGEST_IMAGE:
            raise InputError(f"image_size is {value}; it must be at most {LARGEST_IMAGE}, all images lie in memory")
        return value

    @field_validator("lr")
    @classmethod
    def _positive(cls, value: float) -> float:
        return within("lr", value, value > 0, "above 0")

    @field_validator("momentum")
    @classmethod
    def _momentum(cls, value: float) -> float:
        return within("momentum", value, 0 <= value < 1, "at least 0 and below 1")

    @field_validator("weight_decay")
    @classmethod
    def _not_negative(cls, value: float) -> float:
        return within("weight_decay", value, value >= 0, "at least 0")

    @field_validator("until")
    @classmethod
    def _until(cls, value: float) -> float:
        return within("until", value, 0 < value <= 1, "above 0 and at most 1 (a share of the examples)")

    @field_validator("margin")
    @classmethod
    def _margin(cls, value: float) -> float:
        return within("margin", value, 0 <= value < 1, "at least 0 and below 1 (0.01 is one point of accuracy)")


def method_label(text: str) -> str:
    """A method as it appears in results.csv.

    Args:
        text: As typed, perhaps with settings in brackets.

    Returns:
        The name with the settings that differ from the defaults; a class of your own keeps its path.
    """
    label = str(parse_method(text))
    path = text.partition("[")[0].strip()
    return path + label.partition("[")[1] + label.partition("[")[2] if ":" in path else label


def make_config(file: Path | None, flags: dict[str, Any]) -> CompareConfig:
    """Settle the settings of a comparison: flags win over the file, the file over the defaults.

    Args:
        file: A YAML file, such as the config.yaml of an earlier comparison.
        flags: Key -> value, for the flags that were given.

    Returns:
        The settings, each of them valid.

    Raises:
        InputError: If the file cannot be read, a key is unknown, or a value is not valid.
    """
    return validated(CompareConfig, {**(read_config(file) if file else {}), **flags}, where=f"{file}: " if file else "")


def read_config(file: Path) -> dict[str, Any]:
    """Read a configuration file.

    Args:
        file: A YAML file of keys and values.

    Returns:
        Its settings, without what a comparison has recorded beside them.

    Raises:
        InputError: If it is missing or not such a file.
    """
    return {key: value for key, value in read_yaml(file).items() if key != RECORDED}


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a file of keys and values.

    Args:
        file: A YAML file.

    Returns:
        What it holds.

    Raises:
        InputError: If it is missing or not such a file.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path of the configuration") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InputError(f"{file}: must hold keys and values, such as 'stages: 6'")
    return {str(key): value for key, value in content.items()}


Config = TypeVar("Config", bound=GridConfig)


def validated(kind: type[Config], settings: dict[str, Any], where: str = "") -> Config:
    """Check settings.

    Args:
        kind: The configuration's class.
        settings: Key -> value.
        where: What to put before a message, such as the file's name.

    Returns:
        The configuration.

    Raises:
        InputError: With one line on the first thing that is wrong.
    """
    known = kind.model_fields
    for key in settings:
        if key not in known:
            raise InputError(f"{where}key '{key}' is unknown{nearest(key, known)}")
    try:
        return kind(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise InputError(f"{where}{cause}") from None
        key = str(first["loc"][0])
        raise InputError(f"{where}{key} is {settings.get(key)!r}; {first['msg'].lower()}") from None
