"""The command that repeats a grid's numbers, from what its config.yaml holds."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from warmstart.grids.settings import HOW_IT_RUNS, RECORDED, CompareConfig

CALLED = "called"
"""Under ``recorded``: the Python function that was called, where a command line cannot say what it was given."""
_ALWAYS = ("data", "model")


def command(words: str, recorded: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Write a command line.

    Args:
        words: What stands before the flags, such as ``compare``.
        recorded: What config.yaml holds.
        keys: Settings that are named; those without a value are left out.

    Returns:
        The command, for a POSIX shell.
    """
    processes = int(recorded.get(RECORDED, {}).get("processes", 1))
    launched = f"torchrun --nproc-per-node {processes} -m " if processes > 1 else ""
    line = [f"{launched}warmstart {words}"]
    for key in keys:
        if (value := recorded.get(key)) is not None:
            text = ",".join(value) if isinstance(value, list) else str(value)
            line.append(f"--{key.replace('_', '-')} {shlex.quote(text)}")
    return " ".join(line)


def compare_command(recorded: Mapping[str, Any]) -> str:
    """The `warmstart compare` that repeats a comparison.

    Args:
        recorded: What config.yaml holds.

    Returns:
        The command; nothing for a comparison that was started from Python.
    """
    if "stage_size" not in recorded or CALLED in recorded.get(RECORDED, {}):
        return ""
    usual = CompareConfig().model_dump(mode="json")
    changed = (key for key in usual if key not in HOW_IT_RUNS and recorded.get(key) != usual[key])
    return command("compare", recorded, dict.fromkeys([*_ALWAYS, *changed]))
