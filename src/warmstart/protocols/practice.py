"""What people do when they train for real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmstart.protocols.protocol import Protocol
from warmstart.streams.settings import RANDOM, STAGE_SIZE
from warmstart.training.recipe import Recipe

FEW, SMALL_BATCH = 1000, 64


class _Practice(Protocol):
    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """In small batches where a stage has few images, or where it is not known how many."""
        size = given.get("stage_size") or (STAGE_SIZE if given.get("order", RANDOM) == RANDOM else 0)
        large = str(size).isdecimal() and int(size) >= FEW
        return {**super().settings(given), **({} if large else {"batch_size": SMALL_BATCH})}


PRACTICE = _Practice(
    "practice",
    "30 epochs, SGD 0.1 with Nesterov's momentum, weight decay 5e-4, warm-up, cosine to 0, crop and flip",
    "ours: what people do, all of it begun anew at each stage",
    Recipe(
        batch_size=128,
        lr=0.1,
        nesterov=True,
        weight_decay=5e-4,
        epochs=30,
        schedule="cosine",
        warmup=1,
        augment=("crop", "flip"),
        new_optimizer=True,
    ),
)
