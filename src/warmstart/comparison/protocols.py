"""Recipes by name: what `--protocol NAME` stands for, which single flags then change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

FEW = 1000
"""Images a stage under which `practice` takes smaller batches."""


def _incremental(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"batch_size": 128, "lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0, "until": 0.999, "max_epochs": 10_000}


def _practice(given: Mapping[str, Any]) -> dict[str, Any]:
    stage_size = given.get("stage_size")
    few = not isinstance(stage_size, int) or stage_size < FEW
    return {
        "batch_size": 64 if few else 128,
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "epochs": 30,
        "schedule": "cosine",
        "warmup": 1,
        "augment": ("crop", "flip"),
        "new_optimizer": True,
    }


def _sota(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "until": 0.999,
        "max_epochs": 260,
        "schedule": "step",
        "milestones": (60, 120, 160, 200),
        "warmup": 1,
        "augment": ("crop", "flip"),
    }


PROTOCOLS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = MappingProxyType(
    {
        "incremental": _incremental,
        "practice": _practice,
        "sota": _sota,
    }
)
"""Name -> the settings that it stands for, given the others.

``incremental`` is the DASH paper's main table; ``practice`` is what people do: 30 epochs a stage of SGD with Nesterov's
momentum, a cosine from 0.1 to 0 after an epoch of warm-up, crop and flip, all begun anew at each stage; ``sota`` is the
DASH paper's appendix.
"""
