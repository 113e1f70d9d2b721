"""The command that repeats a grid's numbers, from its record."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from warmstart.grids.record import Record


def repeat_command(words: str, record: Record[Any], always: Iterable[str], usual: dict[str, Any]) -> str:
    """Write the command that repeats a grid's numbers, for a POSIX shell.

    Args:
        words: What stands before the flags, such as ``compare``.
        record: The grid's record.
        always: Settings that are always named, first.
        usual: Values by name that need not be named, such as defaults.

    Returns:
        The command, with all settings that decide numbers or how they are read.
    """
    processes = record.provenance.processes
    launched = f"torchrun --nproc-per-node {processes} -m " if processes > 1 else ""
    settings = record.settings
    decisive = type(settings).names_of("numbers", "extensible", "limit", "reading")
    changed = (name for name in decisive if name not in usual or getattr(settings, name) != usual[name])
    line = [f"{launched}warmstart {words}"]
    for name in dict.fromkeys([*always, *changed]):
        flag, value = name.replace("_", "-"), getattr(settings, name)
        if isinstance(value, bool):
            line.append(f"--{'' if value else 'no-'}{flag}")
        elif value is not None:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            line.append(f"--{flag} {shlex.quote(text)}")
    return " ".join(line)
