"""A new class arrives: the head grows, its old rows stay, and DASH acts on the network that has it.

python examples/recipes/new_class.py
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

import warmstart as ws


def month(seed: int, classes: int, examples: int = 600) -> TensorDataset:
    """Points around a centre for each class; a real project reads its files here."""
    centres = 1.5 * torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (examples,), generator=generator)
    return TensorDataset(centres[labels] + 2.5 * torch.randn(examples, 32, generator=generator), labels)


def grown(head: nn.Linear, classes: int) -> nn.Linear:
    """A layer with a row for each class: those of the old classes as they were, fresh ones for the new."""
    wider = nn.Linear(head.in_features, classes, bias=head.bias is not None).to(head.weight)
    with torch.no_grad():
        for name, old in head.named_parameters():
            wider.get_parameter(name)[: head.out_features] = old
    return wider


def train(model: nn.Module, data: Dataset, epochs: int = 15) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)  # made after the head has grown
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for inputs, labels in DataLoader(data, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        schedule.step()


def accuracies(model: nn.Module, data: TensorDataset, old_classes: int) -> str:
    inputs, labels = data.tensors
    right = (model.eval()(inputs).argmax(1) == labels).float()
    model.train()
    old = labels < old_classes
    return f"old classes {right[old].mean():.3f}, the new one {right[~old].mean():.3f}"


if __name__ == "__main__":
    torch.manual_seed(0)
    june, july, test = month(1, classes=4), month(2, classes=5), month(3, classes=5)
    model = nn.Sequential(nn.Linear(32, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 4))
    train(model, june)

    model[-1] = grown(model[-1], classes=5)  # before the optimizer is made
    print("grown:", accuracies(model, test, old_classes=4))

    both = ConcatDataset([june, july])  # oldest first
    batches = ws.oldest_first(DataLoader(both, batch_size=64), batch_size=200)
    print(ws.dash_(model, batches, cross_entropy, new_examples=len(july)))

    train(model, both)
    print("trained:", accuracies(model, test, old_classes=4))
