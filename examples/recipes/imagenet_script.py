"""A training script of the torchvision kind, warm-started when new data arrives; started again, it resumes.

python examples/recipes/imagenet_script.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import warmstart as ws

OUT = Path("out/imagenet-script")


def photograph(month: str, images: int) -> None:
    """New files OUT/data/CLASS/MONTH-NUMBER.png; a real project has its own."""
    for label, name in enumerate(("bird", "cat", "dog")):
        (OUT / "data" / name).mkdir(parents=True, exist_ok=True)
        chance = np.random.default_rng([int(month[-2:]), label])
        for number in range(images):
            pixels = 60 * label + chance.integers(0, 130, (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(OUT / "data" / name / f"{month}-{number:04}.png")


class ImageFolder(Dataset):
    """As `torchvision.datasets.ImageFolder`: sorted by class, and within a class by name."""

    def __init__(self, root: Path, augment: bool = False) -> None:
        self.classes = sorted(path.name for path in root.iterdir())
        self.samples = [(path, i) for i, name in enumerate(self.classes) for path in sorted((root / name).iterdir())]
        self.targets = [label for _, label in self.samples]
        self.augment = augment

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        image = torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32) / 255).permute(2, 0, 1)
        return image.flip(2) if self.augment and torch.rand(()) < 0.5 else image, label


def order_of_arrival(samples: list[tuple[Path, int]]) -> list[int]:
    """By month, which the names of the files begin with, and random within a month."""
    chance = np.random.default_rng(0).permutation(len(samples))
    return sorted(range(len(samples)), key=lambda i: (samples[i][0].name[:7], chance[i]))


def make_model(classes: int) -> nn.Module:
    """A real project has `torchvision.models.resnet50(num_classes=classes)` here."""
    features = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(64, classes))


def train(out: Path, warm_start: Path | None = None, epochs: int = 8) -> None:
    """Train on all files; ``warm_start`` is last month's checkpoint, your script's new flag."""
    data = ImageFolder(OUT / "data", augment=True)
    model, criterion = make_model(len(data.classes)), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    lr_scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
    parts = {"model": model, "optimizer": optimizer, "lr_scheduler": lr_scheduler}
    checkpoint, start = out / "checkpoint.pth", 0
    if checkpoint.exists():  # this month's training was interrupted: go on with all of it
        saved = torch.load(checkpoint)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        start = saved["epoch"] + 1
    elif warm_start:  # new data has arrived: last month's weights, and all else fresh
        saved = torch.load(warm_start)
        model.load_state_dict(saved["model"])
        plain = ImageFolder(OUT / "data")  # without augmentation
        ordered = DataLoader(Subset(plain, order_of_arrival(plain.samples)), batch_size=256)
        batches = ws.oldest_first(ordered, batch_size=100)  # leave batch_size out, above some thousand images
        print(ws.dash_(model, batches, criterion, new_examples=len(plain) - saved["images"]))
    out.mkdir(parents=True, exist_ok=True)
    for epoch in range(start, epochs):
        print(f"epoch {epoch}, learning rate {optimizer.param_groups[0]['lr']:g}")
        for images, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()
        lr_scheduler.step()
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**states, "epoch": epoch, "images": len(data)}, checkpoint)


if __name__ == "__main__":
    photograph("2026-06", images=100)
    train(OUT / "june")
    photograph("2026-07", images=100)
    train(OUT / "july", warm_start=OUT / "june" / "checkpoint.pth")
