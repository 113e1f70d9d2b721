"""Hugging Face Trainer: June's model, DASH over both months, a fresh schedule; started again, it acts only once.

python examples/hugging_face.py
"""

import logging
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import warmstart as ws
from warmstart.integrations.transformers import WarmStart

OUT = Path("out/hugging-face")
logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows what WarmStart does


class Month(Dataset):
    """100 texts; a real project loads and tokenizes its own here."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        steps = torch.randint(1, 4, (100, 1), generator=generator) * torch.arange(16)
        self.tokens = (torch.randint(0, 50, (100, 1), generator=generator) + steps) % 50

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def train(model: GPT2LMHeadModel, data: Dataset, out: Path, *callbacks) -> None:
    last = get_last_checkpoint(str(out)) if out.exists() else None
    if last:  # the Trainer itself does not restore every kind of model (transformers issue 43701)
        model = GPT2LMHeadModel.from_pretrained(last)
    args = TrainingArguments(str(out), num_train_epochs=3, learning_rate=1e-3, lr_scheduler_type="cosine", use_cpu=True)
    trainer = Trainer(model, args, train_dataset=data, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(out / "model")


june, july = Month(1), Month(2)
config = GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
train(GPT2LMHeadModel(config), june, OUT / "june")

model = GPT2LMHeadModel.from_pretrained(OUT / "june" / "model")
both = ConcatDataset([june, july])  # oldest first; the Trainer shuffles its batches, and DASH reads them in order
train(model, both, OUT / "july", WarmStart(ws.Dash(batch_size=50), new_examples=len(july)))
