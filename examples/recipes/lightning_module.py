"""Lightning with a data module, augmentation and an EMA: June's checkpoint, DASH over both months, a fresh fit.

python examples/recipes/lightning_module.py
"""

import logging
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset

import warmstart as ws
from warmstart.integrations.lightning import WarmStart

OUT = Path("out/recipe-lightning")
logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows what WarmStart does


class Month(Dataset):
    """200 images in four classes; a real project reads its files here."""

    def __init__(self, number: int, augment: bool = False) -> None:
        patterns = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(number)
        self.targets = torch.randint(0, 4, (200,), generator=generator)
        self.images = patterns[self.targets] + 3 * torch.randn(200, 3, 8, 8, generator=generator)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        return image.flip(2) if self.augment and torch.rand(()) < 0.5 else image, self.targets[index]


class Months(LightningDataModule):
    """All months so far, oldest first."""

    def __init__(self, numbers: list[int], batch_size: int = 32) -> None:
        super().__init__()
        self.numbers, self.batch_size = numbers, batch_size

    def train_dataloader(self) -> DataLoader:
        data = ConcatDataset([Month(number, augment=True) for number in self.numbers])
        return DataLoader(data, self.batch_size, shuffle=True)

    def in_order(self) -> DataLoader:
        """The same months without augmentation, for DASH."""
        return DataLoader(ConcatDataset([Month(number) for number in self.numbers]), self.batch_size)


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        features = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()]
        self.network = nn.Sequential(*features, nn.Linear(16 * 36, 4))

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        return cross_entropy(self.network(inputs), labels)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)]


def fit(module: LightningModule, months: Months, folder: Path, *callbacks) -> None:
    callbacks = [*callbacks, EMAWeightAveraging(decay=0.9), ModelCheckpoint(folder, save_last=True)]
    trainer = Trainer(max_epochs=4, accelerator="cpu", callbacks=callbacks, logger=False, enable_progress_bar=False)
    trainer.fit(module, months, ckpt_path="last")


if __name__ == "__main__":
    fit(Classifier(), Months([6]), OUT / "june")

    module = Classifier.load_from_checkpoint(OUT / "june" / "last.ckpt")  # the averaged weights, which were served
    months = Months([6, 7])
    fit(module, months, OUT / "july", WarmStart(ws.Dash(batch_size=100), months.in_order(), new_examples=200))
