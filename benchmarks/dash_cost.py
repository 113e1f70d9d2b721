"""What one application of DASH costs: the tail of the data against all of it, and against dash-pytorch from PyPI.

Everything is measured side by side in one run, on the same random images; ratios are what counts. On a CPU the images
are small by default, so that a full pass over 50,000 takes a minute and not twenty. Usage:

    python benchmarks/dash_cost.py [--model resnet18] [--image-size 8] [--examples 50000] [--batch-size 128]
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import warmstart as ws
from warmstart.average_gradient import average_gradient
from warmstart.models.registry import model_factory
from warmstart.training.devices import find_device


class Images(Dataset[tuple[Tensor, Tensor]]):
    """As many labelled images as one likes, from a pool; it counts how many were read."""

    def __init__(self, length: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pool = torch.randn(1024, 3, size, size, generator=generator)
        self.length = length
        self.read = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.read += 1
        return self.pool[index % len(self.pool)], torch.tensor(index % 10)


class Named(Dataset[dict[str, Tensor]]):
    """The same images as mappings, which dash-pytorch wants."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, label = self.images[index]
        return {"image": image, "label": label}


class LossOf(nn.Module):
    """A network that returns its loss, which dash-pytorch wants."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """The mean cross-entropy."""
        return cross_entropy(self.network(image.to(self.device)), label.to(self.device))


def seconds(work: Callable[[], Any], device: torch.device, rounds: int = 1) -> float:
    """The shortest of some runs."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=8)
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = find_device(options.device)
    size, batch_size = options.image_size, options.batch_size
    torch.manual_seed(0)
    model = model_factory(options.model)(10, 3, size).to(device)
    print(f"{options.model}, {size}x{size} images, batches of {batch_size}, {device}, torch {torch.__version__}\n")

    def apply(length: int, **settings: Any) -> Callable[[], ws.Report]:
        loader = DataLoader(Images(length, size), batch_size)
        return lambda: ws.dash_(model, loader, cross_entropy, apply=False, **settings)

    def row(what: str, taken: float, against: float) -> None:
        print(f"{what:<58}{taken:>9.2f} s{taken / against:>9.2f}x")

    apply(2 * batch_size)()  # warm up
    tail = seconds(apply(options.examples), device, rounds=2)
    row(f"warmstart, {options.examples:,} examples, the last 39 batches", tail, tail)
    for length in (20_000, 1_281_167):
        row(f"warmstart, {length:,} examples", seconds(apply(length), device, rounds=2), tail)
    row(
        f"warmstart, {options.examples:,} examples, tolerance=0 (all)",
        seconds(apply(options.examples, tolerance=0), device),
        tail,
    )
    theirs = seconds_of_dash_pytorch(model, options.examples, batch_size, size, device)
    if theirs is None:
        print("dash-pytorch is not installed: pip install dash-pytorch==0.0.3")
    else:
        row(f"dash-pytorch 0.0.3, {options.examples:,} examples", theirs, tail)

    print()
    for pixels in sorted({size, 32}):  # where weights dominate, pieces cost; where activations do, they pay
        batch = next(iter(DataLoader(Images(1000, pixels), 1000)))
        whole = seconds(partial(ws.dash_, model, [batch], cross_entropy, apply=False), device, rounds=3)
        row(f"one batch of 1000 images of {pixels}x{pixels}, whole", whole, whole)
        for micro in (64, 128, 256):
            work = partial(ws.dash_, model, [batch], cross_entropy, apply=False, micro_batch_size=micro)
            row(f"  in micro-batches of {micro}", seconds(work, device, rounds=3), whole)

    print()
    ema = average_gradient(model, [batch], lambda model, batch: cross_entropy(model(batch[0]), batch[1]))
    kept = sum(average.numel() * average.element_size() for average in ema.average.values())
    weights = sum(entry.parameter.numel() * 4 for entry in ema.parameters)
    print(
        f"memory kept beside the model: {kept / 2**20:.1f} MiB, {kept / weights:.2f} fp32 copies of the scaled weights"
    )


def seconds_of_dash_pytorch(
    model: nn.Module, examples: int, batch_size: int, size: int, device: torch.device
) -> float | None:
    """One application of dash-pytorch, or None where it is not installed."""
    try:
        from DASH import shrink_params_with_dataset_
    except ImportError:
        return None
    network = LossOf(copy.deepcopy(model), device).eval()
    data = Named(Images(examples, size))
    return seconds(lambda: shrink_params_with_dataset_(network, data, batch_size=batch_size), device)


if __name__ == "__main__":
    main()
