"""A new permutation of the pixels with every stage: a task whose distribution changes."""

from warmstart.protocols.protocol import Protocol
from warmstart.training.recipe import Recipe

PERMUTED_PIXELS = Protocol(
    "permuted-pixels",
    "20 stages of 1000, each with the pixels in another order and trained on alone, 10 epochs in batches of 16",
    "ours, after Kumar et al. 2023, arXiv 2308.11958, who have 500 stages of 10,000 images that are each seen once",
    Recipe(batch_size=16, lr=1e-2, epochs=10),
    {"shift": "pixels", "stages": 20, "stage_size": 1000},
)
