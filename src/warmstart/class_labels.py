"""The class labels of batches and data sets, as far as they can be had without reading an example for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from warmstart.batches import Pieces
from warmstart.loaders import order_of

_KEYS = ("labels", "label", "targets", "target")
"""Where mappings, and data sets of torchvision's kind, have them."""


def labels_of(batch: Any) -> Tensor | None:
    """A copy of the labels (N,) of a batch, an ``(input, target)`` or a mapping; None where there are no such."""
    if isinstance(batch, Pieces):
        parts = [labels for part in batch.parts if (labels := labels_of(part)) is not None]
        return torch.cat(parts) if len(parts) == len(batch.parts) else None
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        found = batch[1]
    else:
        found = next((batch[key] for key in _KEYS if key in batch), None) if isinstance(batch, Mapping) else None
    return found.detach().clone() if _are_classes(found) else None


def all_labels(batches: Iterable[Any]) -> Tensor | None:
    """The labels (N,) of all that a loader reads, from the list that its data set has of them; None without one."""
    if not isinstance(batches, DataLoader) or (labels := _of_dataset(batches.dataset)) is None:
        return None
    order = order_of(batches)
    return labels if len(order) == len(labels) else labels[torch.as_tensor(order, dtype=torch.long)]


def _of_dataset(dataset: Any) -> Tensor | None:
    if isinstance(dataset, ConcatDataset):
        parts = [labels for part in dataset.datasets if (labels := _of_dataset(part)) is not None]
        return torch.cat(parts) if len(parts) == len(dataset.datasets) else None
    if isinstance(dataset, Subset):
        whole = _of_dataset(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices, dtype=torch.long)]
    if isinstance(dataset, TensorDataset):
        found: Any = dataset.tensors[-1] if len(dataset.tensors) > 1 else None
    else:
        found = next((value for key in _KEYS if (value := getattr(dataset, key, None)) is not None), None)
    try:
        labels = torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # no numbers, or not one for each example
        return None
    return labels.cpu() if _are_classes(labels) and len(labels) == len(dataset) else None


def _are_classes(found: Any) -> bool:
    return isinstance(found, Tensor) and found.dim() == 1 and not (found.is_floating_point() or found.is_complex())
