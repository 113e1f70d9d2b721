"""A moving average of the weights is served: it is made anew after DASH, or it would keep the unshrunk weights.

python examples/recipes/averaged_model.py
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

import warmstart as ws


def month(seed: int) -> TensorDataset:
    """600 points in ten classes; a real project reads its files here."""
    centres = 1.5 * torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (600,), generator=generator)
    return TensorDataset(centres[labels] + 2.5 * torch.randn(600, 32, generator=generator), labels)


def averaged(model: nn.Module) -> AveragedModel:
    """A copy of the network as it is now, which follows it; batch-norm statistics are averaged too."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)


def train(model: nn.Module, copies: list[AveragedModel], data: Dataset, epochs: int = 10) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for inputs, labels in DataLoader(data, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            for copy in copies:
                copy.update_parameters(model)
        schedule.step()


def distance(one: nn.Module, other: nn.Module) -> float:
    """How far apart two networks' weights are, as a share of their length."""
    a, b = (nn.utils.parameters_to_vector(network.parameters()) for network in (one, other))
    return ((a - b).norm() / a.norm()).item()


if __name__ == "__main__":
    torch.manual_seed(0)
    june, july = month(1), month(2)
    model = nn.Sequential(nn.Linear(32, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10))
    ema = averaged(model)
    train(model, [ema], june)

    both = ConcatDataset([june, july])  # oldest first
    model.load_state_dict(ema.module.state_dict())  # go on from the network that was served
    batches = ws.oldest_first(DataLoader(both, batch_size=64), batch_size=200)
    print(ws.dash_(model, batches, cross_entropy, new_examples=len(july)))
    stale, ema = ema, averaged(model)  # anew, from the shrunk weights

    train(model, [ema, stale], both, epochs=1)  # `stale` is here for the comparison below alone
    anew, old = distance(model, ema.module), distance(model, stale.module)
    print(f"after an epoch: made anew {anew:.3f} away, the old one {old:.3f}")
    train(model, [ema], both)
    inputs, labels = month(3).tensors
    print(f"accuracy on August: {(ema.module.eval()(inputs).argmax(1) == labels).float().mean():.3f}")
