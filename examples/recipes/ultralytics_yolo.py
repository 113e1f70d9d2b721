"""Ultralytics YOLO: June's best.pt goes on with July's images, and DASH acts before the first update.

python examples/recipes/ultralytics_yolo.py out/june/weights/best.pt july.yaml NEW_IMAGES    # needs ultralytics
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

import warmstart as ws


class InOrder(Sequence):
    """The training images in batches of one size, oldest first, without augmentation, as the trainer prepares them."""

    def __init__(self, trainer: Any, size: int) -> None:
        from ultralytics.data import build_yolo_dataset

        images = trainer.data["train"]
        # Not by the trainer's own build_dataset: in mode "val" it sorts images by their shape (rect).
        self.dataset = build_yolo_dataset(trainer.args, images, size, trainer.data, mode="val", rect=False)
        self.order = sorted(range(len(self.dataset)), key=lambda i: os.path.getmtime(self.dataset.im_files[i]))
        self.trainer, self.size = trainer, size

    def __len__(self) -> int:
        return len(self.order) // self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        end = len(self.order) - (len(self) - 1 - range(len(self))[index]) * self.size
        chosen = [self.dataset[i] for i in self.order[end - self.size : end]]
        batch = self.trainer.preprocess_batch(self.dataset.collate_fn(chosen))
        return {"img": batch.pop("img"), **batch}  # first the images: by them the report counts


def not_a_prior(module: nn.Module, name: str) -> bool:
    """Whether a layer takes part: all but the head's last convolutions, whose biases hold the rarity of objects."""
    return not (isinstance(module, nn.Conv2d) and module.bias is not None)


def warm_start(new_images: int, batch_size: int = 16, alpha: float = 0.02) -> Any:
    """The callback for `on_pretrain_routine_end`."""

    def on_pretrain_routine_end(trainer: Any) -> None:
        if trainer.start_epoch > 0:  # resumed: it has been done
            return
        report = ws.dash_(
            trainer.model,
            InOrder(trainer, batch_size),
            forward_loss=lambda model, batch: model.loss(batch)[0].sum() / len(batch["img"]),
            alpha=alpha,
            filter_fn=not_a_prior,
            new_examples=new_images,
        )
        trainer.ema = type(trainer.ema)(trainer.model)  # it was made of the unshrunk weights
        print(report)

    return on_pretrain_routine_end


if __name__ == "__main__":
    from ultralytics import YOLO

    weights, data, new_images = sys.argv[1:]
    yolo = YOLO(weights)
    yolo.add_callback("on_pretrain_routine_end", warm_start(int(new_images)))
    yolo.train(data=data, epochs=100, imgsz=640, batch=16)  # not resume=True, which is for an interruption
