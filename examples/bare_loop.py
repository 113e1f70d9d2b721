"""A loop of your own: June's weights, DASH over both months, a fresh schedule; started again, it acts only once.

python examples/bare_loop.py
"""

import logging
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

import warmstart as ws
from warmstart.integrations import WarmStart

OUT = Path("out/bare-loop")
logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows what WarmStart does


def month(seed: int) -> TensorDataset:
    """600 points in ten classes; a real project reads its files here."""
    centres = 1.5 * torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (600,), generator=generator)
    return TensorDataset(centres[labels] + 2.5 * torch.randn(600, 32, generator=generator), labels)


def train(model: nn.Module, data: Dataset, file: Path, warm_start: WarmStart | None = None, epochs: int = 10) -> None:
    """Train from the checkpoint if there is one, else from the model's weights; save after each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    if warm_start:
        parts["warm_start"] = warm_start
    if file.exists():
        for name, state in torch.load(file).items():
            parts[name].load_state_dict(state)
    if warm_start:
        warm_start.apply_(model, optimizer, step=schedule.last_epoch)  # not again, if the checkpoint says so
    for _ in range(schedule.last_epoch, epochs):
        for inputs, labels in DataLoader(data, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        schedule.step()
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)


OUT.mkdir(parents=True, exist_ok=True)
june, july = month(1), month(2)
model = nn.Sequential(nn.Linear(32, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10))
train(model, june, OUT / "june.pt")

both = ConcatDataset([june, july])  # oldest first
warm_start = WarmStart(ws.Dash(batch_size=200), DataLoader(both, batch_size=64), cross_entropy, new_examples=len(july))
train(model, both, OUT / "july.pt", warm_start)

inputs, labels = month(3).tensors
print(f"accuracy on August: {(model.eval()(inputs).argmax(1) == labels).float().mean():.3f}")
