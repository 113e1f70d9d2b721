"""The engine's images a second against those of a plain PyTorch loop and of a `DataLoader` with PIL transforms.

And with `--dash`, what one application of each method costs. Everything is measured in one run, turn by turn, on the
same random images; ratios are what counts. On a GPU the defaults are the paper's: ResNet-18, 50,000 images of 32x32,
batches of 128. On a CPU, in seconds:

    python benchmarks/throughput.py --model small-cnn --images 512 --workers 0,2
    python benchmarks/throughput.py --model small-cnn --dash --examples 2000
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import warmstart as ws
from dash_cost import seconds_of_dash_pytorch
from floor import finished, measured_rates, seconds_of, work_of
from warmstart.models.registry import model_factory
from warmstart.training.augmentation import PADDING
from warmstart.training.devices import find_device
from warmstart.training.examples import Examples, on_device
from warmstart.training.loop import Hooks, train_stage
from warmstart.training.optimizers import make_optimizer
from warmstart.training.recipe import PRECISIONS, Recipe
from warmstart.training.step import make_step, tf32

CLASSES = 10
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
AUGMENTED = ("crop", "flip")


@dataclass(frozen=True)
class Bench:
    """What is measured on."""

    model: str
    image_size: int
    batch_size: int
    precision: str
    rounds: int
    device: torch.device
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the network's factory."""

    def network(self) -> nn.Module:
        """The same network for everyone."""
        torch.manual_seed(0)
        return model_factory(self.model)(CLASSES, 3, self.image_size, **self.settings).to(self.device)

    def random_images(self, count: int) -> tuple[Tensor, Tensor]:
        """uint8 images on the CPU, and their labels."""
        return _random_images(count, self.image_size)

    def examples(self, count: int) -> Examples:
        """The same images where the engine has them."""
        return on_device(*self.random_images(count), torch.tensor(MEAN), torch.tensor(STD), self.device)

    def tf32(self) -> AbstractContextManager[None]:
        """TF32 as the engine switches it, for a loop that is not the engine's."""
        return tf32(self.precision != "fp32", self.device)


@cache
def _random_images(count: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, CLASSES, (count,), generator=generator)


def engine_epoch(
    bench: Bench, count: int, augmentation: tuple[str, ...] = (), captured: bool = True, l2_init: bool = False
) -> float:
    """Train with the engine; seconds of the second epoch."""
    model = bench.network()
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = make_optimizer(Recipe(), model)
    settings: dict[str, Any] = {
        "augment": augmentation,
        "precision": bench.precision,
        "captured": captured,
        "channels_last": True,
    }
    ends: list[float] = []
    train_stage(
        model,
        optimizer,
        bench.examples(count),
        Recipe(batch_size=bench.batch_size, epochs=2, **settings),
        seed_of=lambda epoch, segment: 1000 * epoch + segment,
        hooks=Hooks(
            after_backward=(lambda: ws.l2_init_(model, initial)) if l2_init else None,
            after_epoch=lambda progress: ends.append(finished(bench.device)),
        ),
    )
    return ends[1] - ends[0]


def plain_epoch(bench: Bench, count: int, memory_format: torch.memory_format = torch.contiguous_format) -> float:
    """The loop that everybody writes first, over float tensors that are already normalised and on the device."""
    inputs, labels = bench.examples(count).batch(slice(None))
    inputs = inputs.contiguous(memory_format=memory_format)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(count, device=bench.device).split(bench.batch_size):
            yield inputs[index], labels[index]

    return _second_epoch(bench, batches, memory_format)


def loader_epoch(bench: Bench, count: int, workers: int) -> float:
    """The loop of most repositories: images opened, shifted and mirrored one by one in worker processes."""
    loader = DataLoader(
        PilImages(*bench.random_images(count)),
        bench.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=bench.device.type == "cuda",
    )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in loader:
            yield inputs.to(bench.device, non_blocking=True), labels.to(bench.device, non_blocking=True)

    return _second_epoch(bench, batches)


def _second_epoch(
    bench: Bench,
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> float:
    model = bench.network().train().to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's lacks it
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    with bench.tf32():
        for _ in range(2):
            began = finished(bench.device)
            for inputs, labels in batches():
                optimizer.zero_grad()
                with torch.autocast(bench.device.type, torch.bfloat16, enabled=bench.precision == "bf16"):
                    loss = cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
    return finished(bench.device) - began


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images through what `RandomCrop`, `RandomHorizontalFlip`, `ToTensor` and `Normalize` of torchvision do."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.mean, self.std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index])
        width, height = image.size
        top, left = (int(shift) for shift in torch.randint(2 * PADDING + 1, (2,)))
        image = ImageOps.expand(image, PADDING).crop((left, top, left + width, top + height))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
        return (tensor - self.mean) / self.std, self.labels[index]


def print_training(bench: Bench, count: int, workers: list[int]) -> None:
    """Measure training, and print a table."""
    rows: dict[str, Callable[[], float]] = {"engine": partial(engine_epoch, bench, count)}
    if bench.device.type == "cuda":
        rows["engine, step not captured"] = partial(engine_epoch, bench, count, captured=False)
        rows["engine, L2 Init acts on each update"] = partial(engine_epoch, bench, count, l2_init=True)
    rows["engine, crop + flip"] = partial(engine_epoch, bench, count, AUGMENTED)
    rows["plain loop, tensors on the device"] = partial(plain_epoch, bench, count)
    for number in workers:
        rows[f"DataLoader, PIL crop + flip, {number} workers"] = partial(loader_epoch, bench, count, number)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    peaks: dict[str, str] = {}
    for _ in range(bench.rounds):
        for name, epoch in rows.items():
            peak = Peak(bench.device)
            seconds[name].append(epoch())
            peaks[name] = peak.mebibytes()

    print(f"{'training':<44}{'images/s':>12}{'engine is':>12}{'peak MiB':>12}")
    for name, taken in seconds.items():
        alike = seconds["engine, crop + flip" if "crop" in name else "engine"]  # the same work
        ratio = statistics.median(other / ours for other, ours in zip(taken, alike, strict=True))
        print(f"{name:<44}{count / statistics.median(taken):>12,.0f}{ratio:>11.2f}x{peaks[name]:>12}")
    print_floor(bench, count / statistics.median(seconds["engine"]))


def print_floor(bench: Bench, engine: float) -> None:
    """What the device could do at most, beside the engine's images a second."""
    model = bench.network().train()
    optimizer = make_optimizer(Recipe(), model)
    step = make_step(model, optimizer, precision=bench.precision, captured=False)
    batch = bench.examples(bench.batch_size).batch(slice(None))
    with bench.tf32():
        work = work_of(lambda: step(*batch))
        rates = measured_rates(bench.device, torch.bfloat16 if bench.precision == "bf16" else torch.float32)
    for what, seconds in zip(("arithmetic", "traffic"), work.seconds(rates), strict=True):
        bound = bench.batch_size / seconds
        print(f"{'floor: ' + what + ' alone':<44}{bound:>12,.0f}{engine / bound:>11.2f}x")
    print(
        f"a step: {work.flops / 1e9:,.1f} GFLOP at {rates.flops / 1e12:,.2f} TFLOP/s of a large matrix product, "
        f"{work.bytes / 1e9:,.2f} GB at {rates.bandwidth / 1e9:,.0f} GB/s of a large copy, nothing fused"
    )


class Peak:
    """The most memory that was in use on the GPU since this was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)

    def mebibytes(self) -> str:
        """It in MiB; a dash on a CPU."""
        return f"{torch.cuda.max_memory_allocated(self.device) / 2**20:,.0f}" if self.device.type == "cuda" else "-"


def print_methods(bench: Bench, count: int, chunk: int) -> None:
    """Measure one application of each method, and print a table."""
    model, examples = bench.network(), bench.examples(count)
    batches = examples.in_order(chunk)
    rows: dict[str, Callable[[], Any]] = {
        f"DASH, the tail of {count:,} images": lambda: ws.dash_(model, batches, cross_entropy),
        "DASH, tolerance=0: all of them": lambda: ws.dash_(model, batches, cross_entropy, tolerance=0),
        "Shrink & Perturb": lambda: ws.shrink_perturb_(model),
        "FIRE": lambda: ws.fire_(model),
    }
    print(f"{'one application (batches of ' + str(chunk) + ')':<44}{'seconds':>12}{'of DASH':>12}{'peak MiB':>12}")
    dash = 0.0
    for name, work in rows.items():
        peak = Peak(bench.device)
        taken = seconds_of(work, bench.device, rounds=1 if "all" in name else 3)
        dash = dash or taken
        print(f"{name:<44}{taken:>12.4f}{taken / dash:>11.2f}x{peak.mebibytes():>12}", flush=True)
    theirs = seconds_of_dash_pytorch(bench.network(), count, chunk, bench.image_size, bench.device)
    if theirs is None:
        print("dash-pytorch is not installed: pip install dash-pytorch==0.0.3")
    else:
        print(f"{'dash-pytorch 0.0.3, all of them':<44}{theirs:>12.4f}{theirs / dash:>11.2f}x")


def write_profile(bench: Bench, count: int, file: str) -> None:
    """Profile two epochs of the engine: a table here, and a trace for https://ui.perfetto.dev in a file."""
    with torch.profiler.profile() as profile:
        engine_epoch(bench, count)
    key = f"self_{bench.device.type}_time_total"
    print(profile.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=60))
    profile.export_chrome_trace(file)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--images", type=int, help="an epoch; 50000 on a GPU and 512 on a CPU if not given")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32")
    parser.add_argument("--workers", default="4,16", help="of the DataLoaders, one loop each (default: 4,16)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; medians are shown")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dash", action="store_true", help="measure one application of each method instead")
    parser.add_argument("--examples", type=int, default=50_000, help="images that DASH reads from")
    parser.add_argument("--chunk", type=int, default=1000, help="images a batch of DASH's")
    parser.add_argument("--profile", metavar="FILE", help="profile the engine instead, and write a trace")
    options = parser.parse_args()

    device = find_device(options.device)
    bench = Bench(options.model, options.image_size, options.batch_size, options.precision, options.rounds, device)
    count = options.images or (50_000 if device.type == "cuda" else 512)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.model}, {options.image_size}x{options.image_size}, {name}, torch {torch.__version__}", end="; ")
    print(f"{count:,} images, batches of {options.batch_size}, {options.precision}\n")
    if options.profile:
        write_profile(bench, count, options.profile)
    elif options.dash:
        print_methods(bench, options.examples, options.chunk)
    else:
        print_training(bench, count, [int(number) for number in options.workers.split(",")])


if __name__ == "__main__":
    main()
