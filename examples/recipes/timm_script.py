"""timm's training script goes on from last month's checkpoint: what its train.py has to call.

python examples/recipes/timm_script.py    # needs timm: some steps on images of its own
"""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import warmstart as ws

OUT = Path("out/timm-script")


def in_order(args: Any, data_config: dict[str, Any], batch_size: int = 1000) -> DataLoader:
    """The training images, oldest first by the files' times, with the transform of validation."""
    from timm.data import create_dataset, create_loader

    # A data set of its own, as create_loader gives the one that it gets another transform.
    data = create_dataset(args.dataset, args.data_dir, split=args.train_split, class_map=args.class_map)
    data.reader.samples.sort(key=lambda sample: os.path.getmtime(sample[0]))
    loader = create_loader(
        data,
        input_size=data_config["input_size"],
        batch_size=args.batch_size,
        use_prefetcher=False,  # which holds batches on the GPU
        interpolation=data_config["interpolation"],
        mean=data_config["mean"],
        std=data_config["std"],
        crop_pct=data_config["crop_pct"],
        num_workers=args.workers,
    )
    return ws.oldest_first(loader, batch_size)


def warm_start_(
    model: nn.Module, model_ema: Any, batches: DataLoader, loss_fn: nn.Module, new_images: int | None = None
) -> None:
    """Call it in main(), once the EMA is made and before DistributedDataParallel wraps the model."""
    print(ws.dash_(model, batches, loss_fn, new_examples=new_images))
    if model_ema is not None:
        model_ema.set(model)  # it was made of the unshrunk weights


def photograph(images: int = 40) -> None:
    for label, name in enumerate(("cat", "dog")):
        (OUT / name).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            pixels = 90 * label + np.random.default_rng([label, number]).integers(0, 160, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(OUT / name / f"{number:03}.png")
            os.utime(OUT / name / f"{number:03}.png", (3600 * number, 3600 * number))


if __name__ == "__main__":
    import timm
    from timm.utils import ModelEmaV2

    photograph()
    args = Namespace(dataset="", data_dir=OUT, train_split="train", class_map="", batch_size=16, workers=1)
    model = timm.create_model("resnet10t", num_classes=2)  # train.py has checkpoint_path=args.initial_checkpoint
    data_config = timm.data.resolve_data_config({"input_size": (3, 32, 32)}, model=model)
    model_ema = ModelEmaV2(model)
    warm_start_(model, model_ema, in_order(args, data_config, batch_size=20), nn.CrossEntropyLoss(), new_images=40)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for images, labels in in_order(args, data_config, batch_size=16):  # train.py has its own loader and loop
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        model_ema.update(model)
