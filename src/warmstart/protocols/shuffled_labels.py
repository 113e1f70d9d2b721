"""Another name for each class with every stage: a task whose labels change."""

from dataclasses import replace

from warmstart.protocols.permuted_pixels import PERMUTED_PIXELS
from warmstart.protocols.protocol import Protocol

SHUFFLED_LABELS: Protocol = replace(
    PERMUTED_PIXELS,
    name="shuffled-labels",
    summary="20 stages of 1000, each with labels exchanged between classes and trained on alone; as permuted-pixels",
    source="ours, after Elsayed and Mahmood, ICLR 2024, arXiv 2404.00781 (label-permuted EMNIST and CIFAR)",
    stream={**PERMUTED_PIXELS.stream, "shift": "labels"},
)
