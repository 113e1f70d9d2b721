"""Images a second on a CPU: the engine against a plain PyTorch loop, as it is and with all of it in channels-last.

The engine lets narrow convolutions read channels-last maps and wide ones contiguous maps (training/layout.py), and it
keeps the memory that a step frees (training/memory.py). The loops of a network take turns, each turn in a new process,
since memory that one loop has freed would serve the next. Ratios are the median over the turns and, in brackets, that
of the shortest turns. On a machine that others use, `--threads 1 --processor-time` counts the process's own time in
place of the clock's. Usage:

    python benchmarks/cpu_layout.py [--networks 'resnet18,resnet18[width=16],small-cnn,vgg16'] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from throughput import Bench, engine_epoch, plain_epoch

NETWORKS = "resnet18,resnet18[width=16],small-cnn"
LOOPS: dict[str, Callable[[Bench, int], float]] = {
    "plain": plain_epoch,
    "channels-last": partial(plain_epoch, memory_format=torch.channels_last),
    "engine": engine_epoch,
}


def main() -> None:
    """Measure and print, or be one turn of a loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS, help=f"with the width in brackets (default: {NETWORKS})")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=512, help="an epoch; the second one is timed")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="turns; medians are shown")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.loop:
        if options.processor_time:
            time.perf_counter = time.process_time
        print(LOOPS[options.loop](bench_of(options), options.images))
        return

    size, threads, cpu = options.image_size, options.threads, torch.backends.cpu.get_cpu_capability()
    print(f"{size}x{size}, batches of {options.batch_size}, {threads} threads, {cpu}, torch {torch.__version__}\n")
    print("images a second; times the plain loop's, the median (and of the shortest turns):")
    print(f"{'':<22}{'plain':>10}{'channels-last':>26}{'engine':>26}")
    for network in options.networks.split(","):
        seconds: dict[str, list[float]] = {loop: [] for loop in LOOPS}
        for _ in range(options.rounds):
            for loop, taken in seconds.items():
                taken.append(seconds_of_a_turn(loop, network))
        plain = seconds.pop("plain")
        shown = f"{network:<22}{options.images / statistics.median(plain):>10,.0f}"
        for taken in seconds.values():
            median = statistics.median(theirs / ours for theirs, ours in zip(plain, taken, strict=True))
            rate = f"{options.images / statistics.median(taken):,.0f}  {median:.2f}x ({min(plain) / min(taken):.2f}x)"
            shown += f"{rate:>26}"
        print(shown, flush=True)


def bench_of(options: argparse.Namespace) -> Bench:
    """What a turn is measured on."""
    name, _, width = options.networks.rstrip("]").partition("[width=")
    settings = {"width": int(width)} if width else {}
    return Bench(name, options.image_size, options.batch_size, "fp32", 1, torch.device("cpu"), settings)


def seconds_of_a_turn(loop: str, network: str) -> float:
    """One turn, in a process of its own, with the flags of this one."""
    command = [sys.executable, *sys.argv, "--loop", loop, "--networks", network]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
