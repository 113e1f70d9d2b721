"""Lightning: June's checkpoint, DASH over both months, a fresh fit; started again, it resumes and acts only once.

python examples/lightning_callback.py
"""

import logging

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

import warmstart as ws
from warmstart.integrations.lightning import WarmStart

OUT = "out/lightning"
logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows what WarmStart does


def month(seed: int) -> TensorDataset:
    """300 images in four classes; a real project reads its files here."""
    patterns = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (300,), generator=generator)
    return TensorDataset(patterns[labels] + 3 * torch.randn(300, 3, 8, 8, generator=generator), labels)


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        features = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()]
        self.network = nn.Sequential(*features, nn.Linear(16 * 36, 4))

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        loss = cross_entropy(self.network(inputs), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)]


def fit(module: LightningModule, data: Dataset, name: str, *callbacks) -> None:
    callbacks = (*callbacks, ModelCheckpoint(f"{OUT}/{name}", save_last=True))
    trainer = Trainer(max_epochs=5, accelerator="cpu", callbacks=list(callbacks), default_root_dir=OUT)
    trainer.fit(module, DataLoader(data, batch_size=32, shuffle=True), ckpt_path="last")


june, july = month(1), month(2)
fit(Classifier(), june, "june")

module = Classifier.load_from_checkpoint(f"{OUT}/june/last.ckpt")
both = ConcatDataset([june, july])  # oldest first, without augmentation
fit(module, both, "july", WarmStart(ws.Dash(batch_size=100), DataLoader(both, batch_size=32), new_examples=len(july)))
