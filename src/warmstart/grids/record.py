"""config.yaml: what a grid of runs was told and what its numbers rest on, and whether an old one may go on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from warmstart.errors import InputError
from warmstart.grids.settings import HOW_IT_RUNS, RECORDED, Config, GridConfig, read_config, read_yaml
from warmstart.storage.atomic import write_text
from warmstart.training.parallel import launched_processes

CONFIG_FILE = "config.yaml"
_MAY_DIFFER = HOW_IT_RUNS | {"margin"}
"""Keys that change no number of a run."""
_EXTENSIBLE = ("methods", "seeds", "optimizers")


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
    content = read_yaml(file)
    for key in ("methods", "seeds", RECORDED):
        if key not in content:
            raise InputError(f"{file} was not written by a comparison (it has no '{key}'); name another folder")
    return content


def with_recorded_threads(config: Config, out: Path) -> Config:
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


def record(config: GridConfig, fingerprint: str) -> dict[str, Any]:
    """What config.yaml holds: every setting, and under ``recorded`` what the numbers rest on besides.

    Args:
        config: The settings.
        fingerprint: The data's.

    Returns:
        Plain values for YAML.
    """
    settings = config.model_dump(mode="json")
    settings["threads"] = config.resolved_threads()
    settings["device"] = config.resolved_device().type
    return {**settings, RECORDED: {"data_fingerprint": fingerprint, **provenance()}}


def provenance() -> dict[str, str]:
    """What numbers rest on besides settings and data.

    Returns:
        By name: versions of warmstart, torch and Python, the kind of machine, the processes that train a run together.
    """
    return {
        "warmstart": version("warmstart"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processes": str(launched_processes()),
    }


def settle_output(out: Path, now: dict[str, Any]) -> list[str]:
    """Write config.yaml into an output folder that is new or may go on.

    Args:
        out: The output folder, locked.
        now: From `record`.

    Returns:
        Warnings, as from `check_output`.

    Raises:
        InputError: If the folder holds another configuration; the message names the key.
    """
    warnings = check_output(out, now)
    write_config(out, now)
    return warnings


def write_config(out: Path, now: dict[str, Any]) -> None:
    """Write config.yaml; what the first start recorded stays.

    Args:
        out: The output folder, locked, which `check_output` has let pass.
        now: From `record`.
    """
    file = out / CONFIG_FILE
    then = read_recorded(out)[RECORDED] if file.exists() else {}
    kept = {**now[RECORDED], **then}
    if isinstance(prints := now[RECORDED].get("data_fingerprint"), dict):  # one a seed, and seeds may be added
        kept["data_fingerprint"] = {**prints, **kept["data_fingerprint"]}
    write_text(file, yaml.safe_dump({**now, RECORDED: kept}, sort_keys=False, allow_unicode=True))


def check_output(out: Path, now: dict[str, Any]) -> list[str]:
    """Check that an output folder is new, or may go on; nothing is written.

    Args:
        out: The output folder.
        now: From `record`.

    Returns:
        Warnings, one sentence each: versions that differ from those of the first start.

    Raises:
        InputError: If the folder holds another configuration; the message names the key.
    """
    if not (out / CONFIG_FILE).exists():
        if (out / "results.csv").exists():
            raise InputError(f"{out} holds a results.csv without {CONFIG_FILE}; choose another --out")
        return []
    before = read_recorded(out)
    for key in now:
        if key not in {*_MAY_DIFFER, *_EXTENSIBLE, RECORDED} and before.get(key) != now[key]:
            raise InputError(f"{out} holds another configuration: {key} is {before.get(key)!r} there and {now[key]!r} "
                             f"now; choose another --out, or the old value")  # fmt: skip
    for key in [key for key in _EXTENSIBLE if key in now]:
        if dropped := [value for value in _members(before[key]) if value not in _members(now[key])]:
            raise InputError(f"{out} also holds {key[:-1]} {dropped[0]}: {key} may be added, not dropped; choose "
                             "another --out, or name all of them again")  # fmt: skip
    then, today = before[RECORDED], now[RECORDED]
    if not _same_data(then.get("data_fingerprint"), today.get("data_fingerprint")):
        raise InputError(f"{out}: the data at '{now['data']}' has changed since the first start; choose another --out")
    return [
        f"warning: {name} is {today[name]} now and was {then[name]}: new runs may differ in their last digits"
        for name in today
        if name != "data_fingerprint" and name in then and then[name] != today[name]
    ]


def _same_data(then: Any, now: Any) -> bool:
    """Fingerprints agree; where each seed has its own, those of the seeds that both have."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(now[seed] == then[seed] for seed in then if seed in now)
    return bool(then == now)


def _members(value: Any) -> Sequence[Any]:
    return range(value) if isinstance(value, int) else value
