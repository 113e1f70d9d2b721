"""The paper's protocol written down once more, in plain PyTorch and as literally as can be: our runs equal it.

Both are given the same images, first weights, orders and noise, and compute in float64, so that rounding cannot decide
when a stage ends: every stage then takes the same steps to the same accuracies, and ends with the same weights.
"""

import copy

import pytest
import torch
from torch import nn

from warmstart.data.load import load
from warmstart.reproduction.papers_methods import PapersTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run
from warmstart.seeds import derive
from warmstart.streams.settings import StreamSettings
from warmstart.training.recipe import Recipe

SEED, STAGES = 3, 4
MOMENTUM, RHO = 0.9, 0.1
SHRINK, NOISE, ALPHA, LAMBDA = 0.3, 0.01, 0.3, 0.3


class InDouble(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, images):
        return self.network(images.double())


class InDoubleTask(PapersTask):
    def make_model(self):
        return InDouble(super().make_model())


def small_cnn():
    return InDoubleTask(
        load("digits"),
        "small-cnn",
        Recipe(lr=1e-2, momentum=MOMENTUM, batch_size=16, until=0.999),
        StreamSettings.of({"stages": STAGES, "stage_size": 60}),
    )


def resnet18():
    """So few updates that its chaos, a factor of ten in some thirty updates, leaves eight digits."""
    return InDoubleTask(
        load("digits"),
        "resnet18[width=8]",
        Recipe(lr=5e-3, momentum=MOMENTUM, batch_size=32, until=0.9),
        StreamSettings.of({"stages": STAGES, "stage_size": 32}),
    )


def drawn(task, *purpose):
    torch.manual_seed(derive(SEED, "init", *purpose))
    return task.make_model()


class Sgd:
    """v <- momentum v + g;  w <- w - lr v."""

    def __init__(self, model, lr):
        self.lr = lr
        self.weights = list(model.parameters())
        self.velocity = [torch.zeros_like(w) for w in self.weights]

    def update(self, gradients):
        for w, v, g in zip(self.weights, self.velocity, gradients, strict=True):
            v.mul_(MOMENTUM).add_(g)
            w.data.sub_(self.lr * v)


def gradients(model, images, labels):
    outputs = model(images)
    found = torch.autograd.grad(nn.functional.cross_entropy(outputs, labels), list(model.parameters()))
    return found, (outputs.argmax(1) == labels).float().mean().item()


def sharpness_aware(model, images, labels):
    """The gradient at  w + rho g / ||g||,  and the accuracy at w."""
    first, accuracy = gradients(model, images, labels)
    norm = torch.sqrt(sum(g.square().sum() for g in first))
    before = [w.detach().clone() for w in model.parameters()]
    for w, g in zip(model.parameters(), first, strict=True):
        w.data.add_(RHO * g / norm)
    second, _ = gradients(model, images, labels)
    for w, old in zip(model.parameters(), before, strict=True):
        w.data.copy_(old)
    return second, accuracy


def shrink_and_perturb(model, generator):
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            for w in filter(lambda w: w is not None, (layer.weight, layer.bias)):
                noise = torch.normal(0.0, 1.0, w.shape, generator=generator)
                w.data.mul_(SHRINK).add_(NOISE * noise.double())


def dash(model, images, labels, stage_size):
    """Algorithm 1: gradients in eval mode on the stages' chunks, oldest first; one scale a row, a kernel, a bias."""
    network = copy.deepcopy(model).eval()
    average = {name: torch.zeros_like(w) for name, w in network.named_parameters()}
    for chunk in range(0, len(labels), stage_size):
        found, _ = gradients(network, images[chunk : chunk + stage_size], labels[chunk : chunk + stage_size])
        for name, g in zip(average, found, strict=True):
            average[name] = (1 - ALPHA) * average[name] + ALPHA * -g
    for prefix, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            for key, w in layer.named_parameters():
                kept = 2 if w.dim() == 4 else w.dim() - 1
                shape = (*w.shape[:kept], -1)
                ours, gradient = w.detach().reshape(shape), average[f"{prefix}.{key}"].reshape(shape)
                cosine = torch.cosine_similarity(ours, gradient, -1, eps=1e-300)  # theirs is 1e-8: see docs/dash.md
                scale = cosine.clamp(LAMBDA, 1)
                w.data.mul_(scale.reshape(*scale.shape, *(1 for _ in range(w.dim() - scale.dim()))))


def papers_protocol(task, method, optimizer):
    """Rows (steps, epochs, training accuracy, test accuracy) of all stages, and the last network."""
    gradient_of = {"sgd": gradients, "sam": sharpness_aware}[optimizer]
    lr, batch_size, until = task.recipe.lr, task.recipe.batch_size, task.recipe.until
    model = drawn(task, 0)
    sgd, rows = Sgd(model, lr), []
    for stage in range(1, STAGES + 1):
        data = task.stage_data(SEED, stage)
        images, labels = data.examples.normalised(data.examples.images), data.examples.labels
        if stage > 1:
            generator = torch.Generator().manual_seed(derive(SEED, "method", stage))
            if method == "cold":
                model = drawn(task, stage, 1)
                sgd = Sgd(model, lr)
            elif method == "shrink-perturb":
                shrink_and_perturb(model, generator)
            elif method == "dash":
                dash(model, images, labels, task.stream.stage_size)
        model.train()
        steps = epoch = 0
        accuracy = 0.0
        while accuracy < until:
            order = torch.randperm(
                len(labels), generator=torch.Generator().manual_seed(derive(SEED, "order", stage, epoch))
            )
            accuracies = []
            for first in range(0, len(labels), batch_size):
                batch = order[first : first + batch_size]
                found, right = gradient_of(model, images[batch], labels[batch])
                sgd.update(found)
                accuracies.append(right)
            accuracy = sum(accuracies) / len(accuracies)
            steps, epoch = steps + len(accuracies), epoch + 1
        model.eval()
        with torch.no_grad():
            right = model(data.test.normalised(data.test.images)).argmax(1) == data.test.labels
        rows.append((steps, epoch, accuracy, right.double().mean().item()))
    return rows, model


RUNS = [
    *(
        (small_cnn, method, "sgd", {"rtol": 1e-7, "atol": 1e-9})
        for method in ("cold", "warm", "shrink-perturb", "dash")
    ),
    # pytorch_optimizer takes the norm of SAM's gradient in float32.
    (small_cnn, "dash", "sam", {"rtol": 1e-4, "atol": 1e-6}),
    *((resnet18, method, "sgd", {"rtol": 1e-4, "atol": 1e-6}) for method in ("warm", "dash")),
]


@pytest.mark.parametrize(("make_task", "method", "optimizer", "near"), RUNS)
def test_every_stage_takes_the_papers_steps_to_the_same_accuracy_and_weights(make_task, method, optimizer, near):
    task = make_task()
    expected, network = papers_protocol(task, method, optimizer)

    run = Run(task, RunKey(method, SEED, optimizer), None)
    rows = run.go_on(lambda event: None).rows

    assert [(row.steps, row.epochs, row.train_accuracy, row.test_accuracy) for row in rows] == expected
    assert len({steps for steps, *_ in expected}) > 1  # the stopping rule decided, not a fixed number of epochs
    for ours, theirs in zip(run.model.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, **near)
