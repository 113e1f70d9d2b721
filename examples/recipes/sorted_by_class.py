"""Data that are sorted by class, or come in parts: how to give `oldest_first` the order of arrival.

python examples/recipes/sorted_by_class.py
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

import warmstart as ws

JUNE = 1_780_272_000  # 1 June 2026, in seconds since 1970


class Folder(Dataset):
    """As torchvision's ImageFolder: `samples` are (file, class), sorted by class; here 1,000 files."""

    def __init__(self, root: Path) -> None:
        if not root.exists():
            write_files(root)
        files = sorted(root.glob("*/*.npy"))
        self.classes = sorted({path.parent.name for path in files})
        self.samples = [(path, self.classes.index(path.parent.name)) for path in files]
        self.targets = [label for _, label in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        return torch.from_numpy(np.load(path)), label


def write_files(root: Path) -> None:
    """Hour by hour, of a class that chance decides; a real project has its own files."""
    chance = np.random.default_rng(0)
    for hour in range(1000):
        file = root / f"class{chance.integers(10)}" / f"{chance.integers(10**9):09}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, chance.normal(size=16).astype(np.float32))
        os.utime(file, (JUNE + 3600 * hour, JUNE + 3600 * hour))


def by_time_of_file(data: Folder) -> list[int]:
    """Where files have kept their times: copying without `cp -p`, git and most downloads lose them."""
    return sorted(range(len(data)), key=lambda i: os.path.getmtime(data.samples[i][0]))


def by_known_time(data: Folder, arrived: dict[str, str]) -> list[int]:
    """Where a table says when each file arrived, as ISO dates: of a database, an upload log, EXIF data."""
    return sorted(range(len(data)), key=lambda i: arrived[data.samples[i][0].name])


def new_files_last(data: Folder, known: set[str], seed: int = 0) -> list[int]:
    """Where no time is known, but which files last month's training had: these first, in random order."""
    chance = np.random.default_rng(seed).permutation(len(data))
    return sorted(range(len(data)), key=lambda i: (data.samples[i][0].name not in known, chance[i]))


def newest_classes(model: nn.Module, data: Dataset, order: list[int] | None = None) -> str:
    """What the report says on the order; `apply=False` changes no weight."""
    if order is not None:
        data = Subset(data, order)
    batches = ws.oldest_first(DataLoader(data, batch_size=64, shuffle=True), batch_size=100)
    report = ws.dash_(model, batches, cross_entropy, apply=False)
    return next((warning for warning in report.warnings if "classes" in warning), "in order, as far as classes tell")


if __name__ == "__main__":
    data = Folder(Path("out/sorted-by-class/files"))
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, len(data.classes)))
    print("as it is:", newest_classes(model, data))

    print("by the files' times:", newest_classes(model, data, by_time_of_file(data)))

    dates = {path.name: f"{np.datetime64(int(os.path.getmtime(path)), 's')}" for path, _ in data.samples}
    print("by a table:", newest_classes(model, data, by_known_time(data, dates)))

    known = {path.name for path, _ in data.samples if dates[path.name] < "2026-07"}  # last month's list of files
    print("new files last:", newest_classes(model, data, new_files_last(data, known)))

    parts = [Subset(data, by_time_of_file(data)[start : start + 250]) for start in range(0, 1000, 250)]
    print("parts:", newest_classes(model, ConcatDataset(parts)))  # the newest part stands last
