"""What `warmstart retrain` saves: ten nights of 500 CIFAR-10 images with a method, tested on the test part after each.

python docs/evidence/ten_nights.py cifar10/ --seeds 3 --out ten-nights.csv

The states lie beside the file; a call that was stopped goes on when it is given again.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warmstart.data.load import load
from warmstart.interruption import answer_signals
from warmstart.retraining.retrain import retrain
from warmstart.retraining.settings import RetrainSettings
from warmstart.retraining.state import StateFolder

NIGHTS, NEW = 10, 500
METHODS = ("dash", "warm", "cold")
RECIPE = {"model": "small-cnn", "batch_size": 64, "lr": 1e-3, "until": 0.999, "promote": "always", "threads": 1}


def nights(
    folder: Path, shards: list[tuple[Tensor, Tensor]], test: Path, method: str, seed: int
) -> Iterator[tuple[int, float]]:
    """Pass the nights that are not over; the updates of each, and the accuracy after it."""
    data, state = folder / "data", folder / "state"
    data.mkdir(parents=True, exist_ok=True)
    for night, (images, labels) in enumerate(shards, start=1):
        file = data / f"{night:02}.npz"
        if not file.exists():
            hidden = data / f".{file.name}"
            np.savez(hidden, images=images.numpy(), labels=labels.numpy())
            hidden.replace(file)
        told = {"data": str(data), "state": str(state), "test": str(test), "method": method, "seed": seed, "keep": 1}
        retrain(RetrainSettings.of({**RECIPE, **told}))
    with StateFolder(state).opened() as index:
        for row in index.stages():
            yield index.runs(row.number)["first"]["steps"], index.metrics(row.number)["accuracy"] or 0.0


def main() -> None:
    """Pass all nights, and write a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="CIFAR-10, as warmstart reads it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("ten-nights.csv"))
    options = parser.parse_args()
    answer_signals()
    data, folder = load(options.data), options.out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    test = folder / "test.npz"
    np.savez(test, images=data.test_images.numpy(), labels=data.test_labels.numpy())
    rows = []
    for seed in range(options.seeds):
        order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(seed))
        shards = [(data.train_images[part], data.train_labels[part]) for part in order.split(NEW)[:NIGHTS]]
        for method in METHODS:
            passed = nights(folder / f"{method}-{seed}", shards, test, method, seed)
            rows += [(method, seed, night, *result) for night, result in enumerate(passed, start=1)]
    with options.out.open("w", newline="") as file:
        csv.writer(file).writerows([("method", "seed", "night", "steps", "accuracy"), *rows])
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
