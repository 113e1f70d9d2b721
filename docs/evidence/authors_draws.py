"""DASH on four stages of 250 CIFAR-10 images, every random choice drawn as in the authors' code.

They seed PyTorch's own generator once, and first weights, arrivals and the order of each epoch follow from it in turn;
`warmstart reproduce` derives each from the seed and its purpose. This is their loop, in a page, with our DASH:

    python docs/evidence/authors_draws.py cifar10/ --seeds 20 --out authors-draws.csv
    warmstart reproduce cifar10 --data cifar10/ --model small-cnn --stages 4 --stage-size 250 --optimizers sgd \
      --methods dash --seeds 20 --out our-draws
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset, random_split

import warmstart as ws
from warmstart.data.load import load
from warmstart.data.paper_sets import PAPER_DATA
from warmstart.models.small_cnn import small_cnn

STAGES, STAGE_SIZE = 4, 250


def run(seed: int, data: TensorDataset, test: tuple[Tensor, Tensor]) -> Iterator[tuple[int, float]]:
    """The steps and the test accuracy of each stage."""
    torch.manual_seed(seed)
    model, loss_fn = small_cnn(10, 3, 32), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    chunks = random_split(data, [STAGE_SIZE] * (len(data) // STAGE_SIZE))
    for stage in range(1, STAGES + 1):
        seen: ConcatDataset[tuple[Tensor, ...]] = ConcatDataset(chunks[:stage])
        if stage > 1:
            ws.dash_(model, DataLoader(seen, batch_size=STAGE_SIZE), loss_fn, alpha=0.3, lambda_=0.3)
        loader = DataLoader(seen, batch_size=128, shuffle=True)
        steps, accuracy = 0, 0.0
        while accuracy < 0.999:
            rights = []
            for images, labels in loader:
                optimizer.zero_grad()
                outputs = model(images)
                loss_fn(outputs, labels).backward()
                optimizer.step()
                rights.append((outputs.argmax(1) == labels).double().mean().item())
            steps, accuracy = steps + len(rights), sum(rights) / len(rights)
        yield steps, accuracy_on(model, *test)


@torch.no_grad()
def accuracy_on(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of all test images that are right."""
    model.eval()
    right = torch.cat([model(part).argmax(1) for part in images.split(500)]) == labels
    model.train()
    return right.double().mean().item()


def main() -> None:
    """Write a row for each seed and stage, as far as they go at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="CIFAR-10, as warmstart reads it")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("authors-draws.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in PAPER_DATA["cifar10"].constants or ())
    images, tests = ((part / 255 - mean) / std for part in (data.train_images, data.test_images))
    with options.out.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("seed", "stage", "steps", "test_accuracy"))
        for seed in range(options.seeds):
            for stage, result in enumerate(
                run(seed, TensorDataset(images, data.train_labels), (tests, data.test_labels)), 1
            ):
                rows.writerow((seed, stage, *result))
            file.flush()
            print(f"seed {seed}: {result[0]} steps, {100 * result[1]:.2f} %")


if __name__ == "__main__":
    main()
