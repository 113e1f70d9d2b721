"""Small networks and batches that many tests share."""

import torch
from torch import nn


def mlp(width=12, norm=True):
    torch.manual_seed(0)
    layers = [nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 4)]
    return nn.Sequential(*(layer for layer in layers if norm or not isinstance(layer, nn.BatchNorm1d)))


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def batches_for(shape, count, size=8, classes=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, *shape, generator=generator), torch.randint(0, classes, (size,), generator=generator))
        for _ in range(count)
    ]


def trained(model, batches, steps=20, lr=0.05):
    """Move a network off its initialisation, so that cosines spread over [-1, 1]."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for step in range(steps):
        inputs, targets = batches[step % len(batches)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model


def updated(model, optimizer, batches):
    """One update on each batch, with an optimizer of the library's own, SAM included."""
    from warmstart.training.optimizers import step

    for inputs, targets in batches:

        def backward(inputs=inputs, targets=targets):
            nn.functional.cross_entropy(model(inputs), targets).backward()

        step(optimizer, backward)


def snapshot(model):
    """Every tensor, training flag and gradient of a network, copied."""
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        {name: layer.training for name, layer in model.named_modules()},
        {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
    )


def assert_same(before, after):
    """Two snapshots agree bit for bit."""
    for name, tensor in before[0].items():
        assert torch.equal(tensor, after[0][name]), name
    assert before[1] == after[1]
    for name, gradient in before[2].items():
        same = (
            gradient is after[2][name]
            if gradient is None or after[2][name] is None
            else torch.equal(gradient, after[2][name])
        )
        assert same, f"gradient of {name}"
