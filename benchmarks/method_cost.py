"""Seconds and memory of every method, per stage and per update, beside a training epoch.

Two stages of random images: each method acts on the second one's arrival, and on each update where it does so. Each is
timed in a process of its own, for memory; rounds take turns, and medians are shown. What a method adds to an update is
the difference from warm, in the same round. Usage:

    python benchmarks/method_cost.py [--model 'resnet18'] [--images 512] [--rounds 3] [--methods cold,warm,dash]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys

import torch

from warmstart.comparison.settings import CompareSettings
from warmstart.data.images import ImageData
from warmstart.methods.registry import methods
from warmstart.runs.image_task import ImageTask
from warmstart.runs.key import RunKey
from warmstart.runs.run import Run

EPOCHS = 2


def main() -> None:
    """Measure and print, or be one turn of a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--images", type=int, default=512, help="a stage's; the second stage trains on twice as many")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", default=",".join(methods()))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_turn(options, options.one)))
        return

    names = list(dict.fromkeys(["warm", *options.methods.split(",")]))
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            print(f"round {number + 1}: {name}", end="\x1b[K\r", file=sys.stderr)
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            turns[name].append(json.loads(done.stdout.splitlines()[-1]))
    warm = turns["warm"]
    epoch = statistics.median(turn["epoch"] for turn in warm)
    cpu = torch.backends.cpu.get_cpu_capability() if options.device == "cpu" else torch.cuda.get_device_name()
    update = 1000 * statistics.median(turn["update"] for turn in warm)
    print(f"{options.model}, {options.image_size}x{options.image_size}, batches of {options.batch_size}, {cpu}, "
          f"{options.threads} threads, torch {torch.__version__}; an epoch of warm on {2 * options.images} images is "
          f"{epoch:.2f} s, an update {update:.0f} ms\n")  # fmt: skip
    print(f"{'':<24}{'a stage, s':>12}{'/ epoch':>9}{'an update':>12}{'memory, MB':>12}")
    for name in names:
        stage = statistics.median(turn["stage"] for turn in turns[name])
        ratio = statistics.median(a["update"] / b["update"] for a, b in zip(turns[name], warm, strict=True))
        memory = statistics.median(a["memory"] - b["memory"] for a, b in zip(turns[name], warm, strict=True))
        print(f"{name:<24}{stage:>12.3f}{stage / epoch:>9.2f}{ratio:>11.2f}x{memory / 1e6:>+12.0f}")
    print("\nA stage: what the method does when data arrives. An update: times warm's. Memory: the peak, minus warm's.")


def one_turn(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Train two stages with a method: seconds of its act, of an epoch and an update of the second stage, peak bytes."""
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (3 * options.images, 3, options.image_size, options.image_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (len(images),), generator=generator)
    test = torch.arange(2 * options.images, 3 * options.images)
    data = ImageData("random", images[: test[0]], labels[: test[0]], images[test], labels[test], tuple("0123456789"))
    settings = CompareSettings.of(
        {
            "stages": 2,
            "stage_size": options.images,
            "batch_size": options.batch_size,
            "epochs": EPOCHS,
            "lr": 1e-3,
            "device": options.device,
            "threads": options.threads,
        }
    )
    task = ImageTask(data, options.model, settings, settings, device=options.device)
    if options.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    *_, row = Run(task, RunKey(name, 0, "sgd"), None).go_on(lambda event: None).rows
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if options.device != "cpu":
        peak = torch.cuda.max_memory_allocated()
    return {
        "stage": row.method_seconds,
        "epoch": row.train_seconds / row.epochs,
        "update": row.train_seconds / row.steps,
        "memory": peak,
    }


if __name__ == "__main__":
    main()
