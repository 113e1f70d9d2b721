"""The settings of `warmstart compare`: checked, written beside the results, and compared when one goes on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from warmstart.errors import InputError, nearest
from warmstart.methods import parse_method, split_names
from warmstart.storage.atomic import write_text
from warmstart.training.optimizers import OPTIMIZERS

CONFIG_FILE = "config.yaml"
_HOW_IT_RUNS = {"out", "jobs", "margin"}
"""Keys that change no number of a run."""
_EXTENSIBLE = ("methods", "seeds")
RECORDED = "recorded"
"""Where the file keeps what is not a setting: versions, the data's fingerprint."""


LARGEST_IMAGE = 4096
"""Of --image-size: far above what these networks are made for; beyond, a slip of the keys."""


class CompareConfig(BaseModel):
    """What `warmstart compare` compares, and how; the YAML file has the same keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    data: str = "digits"
    model: str = "small-cnn"
    methods: tuple[str, ...] = ("cold", "warm", "shrink-perturb", "dash")
    optimizer: str = "sgd"
    stages: int = 6
    stage_size: int = 50
    seeds: int = 5
    batch_size: int = 16
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    until: float = 0.999
    max_epochs: int = 10_000
    image_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    device: str = "auto"
    threads: int | str = "auto"
    jobs: int | str = "auto"
    margin: float = 0.0
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

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        if value not in OPTIMIZERS:
            raise InputError(f"optimizer '{value}' is unknown{nearest(value, OPTIMIZERS)}")
        return value

    @field_validator("stages", "stage_size", "seeds", "batch_size", "max_epochs", "image_size")
    @classmethod
    def _at_least_one(cls, value: int | None, info: Any) -> int | None:
        if value is not None and value < 1:
            raise InputError(f"{info.field_name} is {value}; it must be at least 1")
        return value

    @field_validator("image_size")
    @classmethod
    def _not_absurd(cls, value: int | None) -> int | None:
        if value is not None and value > LARGEST_IMAGE:
            raise InputError(f"image_size is {value}; it must be at most {LARGEST_IMAGE}, all images lie in memory")
        return value

    @field_validator("threads", "jobs", mode="before")
    @classmethod
    def _auto_or_count(cls, value: Any, info: Any) -> int | str:
        text = str(value)
        if text != "auto" and not (text.isdecimal() and int(text) >= 1):
            raise InputError(f"{info.field_name} is '{value}'; it must be 'auto' or a whole number, at least 1")
        return text if text == "auto" else int(text)

    @field_validator("out")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise InputError("out is empty; name the output folder, such as out/compare")
        return value

    @field_validator("lr")
    @classmethod
    def _positive(cls, value: float) -> float:
        return _within("lr", value, value > 0, "above 0")

    @field_validator("momentum")
    @classmethod
    def _momentum(cls, value: float) -> float:
        return _within("momentum", value, 0 <= value < 1, "at least 0 and below 1")

    @field_validator("weight_decay")
    @classmethod
    def _not_negative(cls, value: float) -> float:
        return _within("weight_decay", value, value >= 0, "at least 0")

    @field_validator("until")
    @classmethod
    def _until(cls, value: float) -> float:
        return _within("until", value, 0 < value <= 1, "above 0 and at most 1 (a share of the examples)")

    @field_validator("margin")
    @classmethod
    def _margin(cls, value: float) -> float:
        return _within("margin", value, 0 <= value < 1, "at least 0 and below 1 (0.01 is one point of accuracy)")

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


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_device(name: str) -> torch.device:
    """Find a device by name.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Returns:
        The device; ``auto`` is the accelerator that is there, else the CPU.

    Raises:
        InputError: If the name is none, or there is no such device here.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name == "auto":
        return torch.device(here[1] if len(here) > 1 else "cpu")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in here:
        raise InputError(f"device '{name}' is not there; this machine has {', '.join(here)} (or say auto)")
    return torch.device(wanted)


def make_config(file: Path | None, flags: dict[str, Any]) -> CompareConfig:
    """Settle the settings: flags win over the file, the file over the defaults.

    Args:
        file: A YAML file, such as the config.yaml of an earlier comparison.
        flags: Key -> value, for the flags that were given.

    Returns:
        The settings, each of them valid.

    Raises:
        InputError: If the file cannot be read, a key is unknown, or a value is not valid.
    """
    return validated({**(read_config(file) if file else {}), **flags}, where=f"{file}: " if file else "")


def read_config(file: Path) -> dict[str, Any]:
    """Read a configuration file.

    Args:
        file: A YAML file of keys and values.

    Returns:
        Its settings, without what a comparison has recorded beside them.

    Raises:
        InputError: If it is missing or not such a file.
    """
    return {key: value for key, value in _read_yaml(file).items() if key != RECORDED}


def read_recorded(out: Path) -> dict[str, Any]:
    """Read all that a comparison has written into its config.yaml.

    Args:
        out: The comparison's folder.

    Returns:
        Its settings, and under ``recorded`` what its numbers rest on besides.

    Raises:
        InputError: If the folder holds no comparison, or the file is another program's or damaged.
    """
    file = out / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"{out} holds no comparison ({CONFIG_FILE} is missing); name the --out of one")
    content = _read_yaml(file)
    for key in ("methods", "seeds", RECORDED):
        if key not in content:
            raise InputError(f"{file} was not written by a comparison (it has no '{key}'); name another folder")
    return content


def _read_yaml(file: Path) -> dict[str, Any]:
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


def validated(settings: dict[str, Any], where: str = "") -> CompareConfig:
    """Check settings.

    Args:
        settings: Key -> value.
        where: What to put before a message, such as the file's name.

    Returns:
        The configuration.

    Raises:
        InputError: With one line on the first thing that is wrong.
    """
    known = CompareConfig.model_fields
    for key in settings:
        if key not in known:
            raise InputError(f"{where}key '{key}' is unknown{nearest(key, known)}")
    try:
        return CompareConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise InputError(f"{where}{cause}") from None
        key = str(first["loc"][0])
        raise InputError(f"{where}{key} is {settings.get(key)!r}; {first['msg'].lower()}") from None


def with_recorded_threads(config: CompareConfig, out: Path) -> CompareConfig:
    """Keep the threads a run of a comparison that goes on: a larger grid must not change earlier numbers.

    Args:
        config: The settings.
        out: The output folder, new or old.

    Returns:
        The settings, with ``threads`` as recorded where it is ``auto``.
    """
    if config.threads != "auto" or not (out / CONFIG_FILE).exists():
        return config
    return config.model_copy(update={"threads": read_config(out / CONFIG_FILE).get("threads", "auto")})


def record(config: CompareConfig, fingerprint: str) -> dict[str, Any]:
    """What config.yaml holds: every setting, and under ``recorded`` what the numbers rest on besides.

    Args:
        config: The settings.
        fingerprint: The data's.

    Returns:
        Plain values for YAML.
    """
    settings = config.model_dump(mode="json")
    settings["threads"] = config.resolved_threads()
    settings["device"] = str(config.resolved_device())
    return {**settings, RECORDED: {"data_fingerprint": fingerprint, **versions()}}


def versions() -> dict[str, str]:
    """What numbers rest on besides settings and data.

    Returns:
        Versions of warmstart, torch and Python, and the kind of machine.
    """
    return {
        "warmstart": version("warmstart"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def settle_output(out: Path, now: dict[str, Any]) -> list[str]:
    """Write config.yaml into a new output folder, or check that an old one may go on.

    Args:
        out: The output folder, locked.
        now: From `record`.

    Returns:
        Warnings, one sentence each: versions that differ from those of the first start.

    Raises:
        InputError: If the folder holds another configuration; the message names the key.
    """
    file = out / CONFIG_FILE
    if not file.exists():
        if (out / "results.csv").exists():
            raise InputError(f"{out} holds a results.csv without {CONFIG_FILE}; choose another --out")
        write_text(file, yaml.safe_dump(now, sort_keys=False, allow_unicode=True))
        return []
    before = read_recorded(out)
    for key in now:
        if key not in {*_HOW_IT_RUNS, *_EXTENSIBLE, RECORDED} and before.get(key) != now[key]:
            raise InputError(f"{out} holds another configuration: {key} is {before.get(key)!r} there and {now[key]!r} "
                             f"now; choose another --out, or the old value")  # fmt: skip
    for key in _EXTENSIBLE:
        if dropped := [value for value in _members(before[key]) if value not in _members(now[key])]:
            raise InputError(f"{out} also holds {key[:-1]} {dropped[0]}: {key} may be added, not dropped; choose "
                             "another --out, or name all of them again")  # fmt: skip
    then, today = before[RECORDED], now[RECORDED]
    if then.get("data_fingerprint") != today.get("data_fingerprint"):
        raise InputError(f"{out}: the data at '{now['data']}' has changed since the first start; choose another --out")
    write_text(file, yaml.safe_dump({**now, RECORDED: {**today, **then}}, sort_keys=False, allow_unicode=True))
    return [
        f"warning: {name} is {today[name]} now and was {then[name]}: new runs may differ in their last digits"
        for name in today
        if name in then and then[name] != today[name]
    ]


def _members(value: Any) -> Sequence[Any]:
    return range(value) if isinstance(value, int) else value


def _within(key: str, value: float, holds: bool, range_: str) -> float:
    if not (math.isfinite(value) and holds):
        raise InputError(f"{key} is {value}; it must be a finite number, {range_}")
    return value
