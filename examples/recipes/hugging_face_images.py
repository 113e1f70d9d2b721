"""Image classification with the Hugging Face Trainer: a ViT, augmentation by `with_transform`, DASH in July.

python examples/recipes/hugging_face_images.py
"""

import logging
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, default_data_collator
from transformers.trainer_utils import get_last_checkpoint

import warmstart as ws
from warmstart.integrations.transformers import WarmStart

OUT = Path("out/hugging-face-images")
logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows what WarmStart does


def month(number: int, images: int = 64) -> Dataset:
    """Images of 8 pixels in three classes; a real project has `load_dataset("imagefolder", ...)` here."""
    chance = np.random.default_rng(number)
    labels = chance.integers(0, 3, images)
    pixels = 40 * labels[:, None, None, None] + chance.integers(0, 150, (images, 3, 8, 8))
    return Dataset.from_dict({"image": pixels.astype(np.uint8).tolist(), "labels": labels.tolist()})


def plain(examples: dict[str, list]) -> dict[str, list]:
    """The transform of evaluation, without augmentation; a real project calls its image processor here."""
    images = torch.tensor(examples["image"], dtype=torch.float32) / 127.5 - 1
    return {"pixel_values": list(images), "labels": examples["labels"]}


def augmented(examples: dict[str, list]) -> dict[str, list]:
    """The transform of training."""
    found = plain(examples)
    found["pixel_values"] = [image.flip(2) if torch.rand(()) < 0.5 else image for image in found["pixel_values"]]
    return found


def train(model: ViTForImageClassification, data: Dataset, out: Path, *callbacks) -> None:
    last = get_last_checkpoint(str(out)) if out.exists() else None
    if last:  # the Trainer itself restores a ViT in part only (transformers issue 43701)
        model = ViTForImageClassification.from_pretrained(last)
    args = TrainingArguments(
        str(out),
        num_train_epochs=1,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        remove_unused_columns=False,  # "image" has to reach the transform
        use_cpu=True,
    )
    trainer = Trainer(model, args, train_dataset=data.with_transform(augmented), callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(out / "model")


if __name__ == "__main__":
    june, july = month(6), month(7)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    train(ViTForImageClassification(ViTConfig(**shape, image_size=8, patch_size=4, num_labels=3)), june, OUT / "june")

    model = ViTForImageClassification.from_pretrained(OUT / "june" / "model")
    both = concatenate_datasets([june, july])  # oldest first
    in_order = DataLoader(both.with_transform(plain), batch_size=16, collate_fn=default_data_collator)
    train(model, both, OUT / "july", WarmStart(ws.Dash(batch_size=32), in_order, new_examples=len(july)))
