"""Active learning in rounds: each goes on from the last one's network, with DASH, instead of a new network.

python examples/recipes/active_learning.py
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import warmstart as ws

ROUND = 100  # examples that are labelled in a round


def points(seed: int, examples: int = 2000) -> TensorDataset:
    """Points around four centres; a real project has its pool of images here, and asks people for their labels."""
    centres = 1.5 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (examples,), generator=generator)
    return TensorDataset(centres[labels] + 3 * torch.randn(examples, 32, generator=generator), labels)


@torch.no_grad()
def least_certain(model: nn.Module, pool: TensorDataset, labelled: list[int], count: int) -> list[int]:
    """The unlabelled examples whose two likeliest classes are nearest to each other."""
    likeliest = model.eval()(pool.tensors[0]).softmax(1).topk(2).values
    margin = likeliest[:, 0] - likeliest[:, 1]
    margin[labelled] = torch.inf
    return margin.argsort()[:count].tolist()


def train(model: nn.Module, data: Dataset, epochs: int = 20) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)  # fresh in each round, as is its schedule
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for inputs, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        schedule.step()


if __name__ == "__main__":
    torch.manual_seed(0)
    pool, (test_inputs, test_labels) = points(1), points(2).tensors
    model = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))
    labelled = torch.randperm(len(pool))[:ROUND].tolist()
    train(model, Subset(pool, labelled))
    for number in range(2, 6):
        labelled += least_certain(model, pool, labelled, ROUND)  # appended: the list is in order of labelling
        so_far = Subset(pool, labelled)
        batches = ws.oldest_first(DataLoader(so_far, batch_size=32), batch_size=ROUND)
        report = ws.dash_(model, batches, cross_entropy, new_examples=ROUND)
        train(model, so_far)
        accuracy = (model.eval()(test_inputs).argmax(1) == test_labels).float().mean()
        print(f"round {number}: {len(labelled)} labelled, {report.share_scaled}, accuracy {accuracy:.3f}")
