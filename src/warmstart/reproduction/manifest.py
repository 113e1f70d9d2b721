"""manifest.json: what a reproduction was computed with, in which sessions, how long, and with how much energy."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from warmstart import plain_yaml
from warmstart.errors import InputError
from warmstart.grids.repeat_command import repeat_command
from warmstart.reproduction.settings import ReproductionRecord
from warmstart.storage.atomic import write_text
from warmstart.training.energy import EnergyMeter

MANIFEST_FILE = "manifest.json"


@contextmanager
def session(out: Path, record: ReproductionRecord, device: torch.device, *, verify: bool) -> Iterator[None]:
    """Record one start of the work in the manifest, however it ends.

    Yields:
        Nothing; the work is done meanwhile.

    Raises:
        BaseException: Whatever ended the work.
    """
    began, meter = time.monotonic(), EnergyMeter(device)
    entry: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "device": _device_facts(device),
        "verified": verify,
        "ended": "killed",  # until it is overwritten at the end
        "wall_seconds": 0.0,
    }
    earlier = sessions_of(out)
    _write(out, record, [*earlier, entry])
    try:
        yield
        entry["ended"] = "done"
    except BaseException as error:
        entry["ended"] = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        raise
    finally:
        entry["wall_seconds"] = round(time.monotonic() - began, 1)
        if math.isfinite(joules := meter.since_last()):
            entry["joules"] = round(joules, 1)
        _write(out, record, [*earlier, entry])


def sessions_of(out: Path) -> list[dict[str, Any]]:
    """The manifest's entries, one a start; none without a manifest, InputError if it is damaged."""
    file = out / MANIFEST_FILE
    if not file.exists():
        return []
    try:
        sessions: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["sessions"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file} is damaged; remove it, and the same command writes a new one") from None
    return sessions


def _write(out: Path, record: ReproductionRecord, sessions: list[dict[str, Any]]) -> None:
    content = {
        "command": reproduce_command(record),
        "settings": plain_yaml.load(record.to_yaml()),
        "wall_seconds": round(sum(one["wall_seconds"] for one in sessions), 1),
        "sessions": sessions,
    }
    if all("joules" in one for one in sessions):
        content["joules"] = round(sum(one["joules"] for one in sessions), 1)
    write_text(out / MANIFEST_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def reproduce_command(record: ReproductionRecord) -> str:
    """The command that repeats the numbers on another machine, with the data from the hub."""
    # Everything that numbers depend on except the data, which another machine loads from the hub.
    not_named = {"dataset": record.settings.dataset, "data": record.settings.data, "device": record.settings.device}
    return repeat_command(f"reproduce {record.settings.dataset}", record, ("protocol", "model"), not_named)


def _device_facts(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"kind": device.type, "cores": os.cpu_count()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "kind": "cuda",
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "count": torch.cuda.device_count(),
    }
