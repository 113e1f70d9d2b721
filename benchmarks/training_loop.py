"""What the engine's training loop adds to a bare PyTorch loop, for ResNet-18 on 32x32 colour images.

Both train the same network on the same images, turn by turn in one run; the bare loop walks over float tensors that
are already normalised and in memory, and measures nothing. Usage:

    python benchmarks/training_loop.py [--data PATH] [--model resnet18] [--batch-size 64] [--batches 6] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from warmstart.experiments.config import find_device
from warmstart.models import model_factory
from warmstart.streams import load
from warmstart.training.examples import on_device
from warmstart.training.loop import Recipe, train_stage
from warmstart.training.optimizers import make_optimizer


def bare_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor, size: int
) -> None:
    """The loop that everybody writes first."""
    model.train()
    for index in torch.randperm(len(inputs), device=inputs.device).split(size):
        optimizer.zero_grad()
        cross_entropy(model(inputs[index]), labels[index]).backward()
        optimizer.step()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="images as for `warmstart compare --data`; random ones if not given")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=6, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    device = find_device(options.device)
    count = options.batch_size * options.batches
    if options.data:
        data = load(options.data)
        images, labels, mean, std = data.train_images, data.train_labels, data.channel_mean(), data.channel_std()
    else:
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        labels, mean, std = torch.randint(0, 10, (count,)), torch.full((3,), 0.5), torch.full((3,), 0.25)
    examples = on_device(images[:count], labels[:count], mean, std, device)
    inputs, targets = examples.batch(slice(None))

    torch.manual_seed(0)
    model = model_factory(options.model)(int(labels.max()) + 1, images.shape[1], images.shape[2]).to(device)
    engine_optimizer = make_optimizer("sgd", model, lr=1e-3, momentum=0.9, weight_decay=0.0)
    bare_optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    recipe = Recipe(options.batch_size, until=2.0, max_epochs=1)  # an accuracy of 2 is never reached: one epoch

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    bare, engine = [], []
    for _ in range(options.rounds + 1):  # the first one warms up
        began = finished()
        bare_epoch(model, bare_optimizer, inputs, targets, options.batch_size)
        middle = finished()
        train_stage(model, engine_optimizer, examples, recipe, seed_of_epoch=int)
        bare.append(middle - began)
        engine.append(finished() - middle)
    ratios = [ours / theirs for ours, theirs in zip(engine[1:], bare[1:], strict=True)]
    print(f"{options.model}, {options.batches} batches of {options.batch_size}, {device}, torch {torch.__version__}")
    print(f"bare loop    {count / statistics.median(bare[1:]):9.1f} images/s")
    print(f"engine       {count / statistics.median(engine[1:]):9.1f} images/s")
    print(f"engine / bare time: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
