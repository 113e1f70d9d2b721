"""Recipes of the literature and of practice, without their optimizer: what protocols are made of."""

from __future__ import annotations

from warmstart.training.recipe import Recipe

INCREMENTAL = Recipe(batch_size=128, lr=1e-3)
"""Until 99.9 %: the main table of Shin et al. (arXiv 2410.23495)."""
SOTA = Recipe(
    batch_size=128,
    lr=0.1,
    weight_decay=5e-4,
    max_epochs=260,
    schedule="step",
    milestones=(60, 120, 160, 200),
    warmup=1,
    augment=("crop", "flip"),
)
"""The appendix of the same paper; its augmentation depends on the data, and is that of CIFAR-10 here."""
PRACTICE = Recipe(
    batch_size=128,
    lr=0.1,
    nesterov=True,
    weight_decay=5e-4,
    epochs=30,
    schedule="cosine",
    warmup=1,
    augment=("crop", "flip"),
    new_optimizer=True,
)
"""What people do, all of it begun anew at each stage."""
