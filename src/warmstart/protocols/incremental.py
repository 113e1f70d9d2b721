"""The main table of the DASH paper."""

from warmstart.protocols.protocol import Protocol
from warmstart.training.recipe import Recipe

INCREMENTAL = Protocol(
    "incremental",
    "until 99.9 % training accuracy, at a constant rate of 1e-3, without augmentation; in batches of 128",
    "Shin et al., NeurIPS 2024, arXiv 2410.23495, table 1",
    Recipe(batch_size=128, lr=1e-3),
)
