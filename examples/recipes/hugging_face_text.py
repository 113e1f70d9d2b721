"""Text classification with the Hugging Face Trainer: a BERT, padded batches, smoothed labels, DASH in July.

python examples/recipes/hugging_face_text.py
"""

import logging
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

import warmstart as ws
from warmstart.integrations.transformers import WarmStart

OUT = Path("out/hugging-face-text")
logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows what WarmStart does
WORDS = ["[PAD]", "[UNK]", "cold", "rain", "snow", "warm", "sun", "dry", "today", "and", "then", "very"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A real project has `AutoTokenizer.from_pretrained(...)` here."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def month(number: int, texts: int = 80) -> Dataset:
    """Texts of 4 to 11 words in two classes; a real project reads its own here."""
    chance = np.random.default_rng(number)
    labels = chance.integers(0, 2, texts)
    topics = [[*WORDS[2 + 3 * label : 5 + 3 * label], *WORDS[8:]] for label in labels]
    written = [" ".join(chance.choice(topic, chance.integers(4, 12))) for topic in topics]
    return Dataset.from_dict({"text": written, "labels": labels.tolist()})


def train(model: BertForSequenceClassification, data: Dataset, out: Path, new_examples: int | None = None) -> None:
    """Train; ``new_examples`` says that the model goes on from old weights, and how many of the last texts are new."""
    last = get_last_checkpoint(str(out)) if out.exists() else None
    if last:
        model = BertForSequenceClassification.from_pretrained(last)
    tokenizer = make_tokenizer()
    args = TrainingArguments(
        str(out), num_train_epochs=1, learning_rate=1e-3, label_smoothing_factor=0.1, warmup_steps=5, use_cpu=True
    )
    trainer = Trainer(
        model,
        args,
        train_dataset=data.map(lambda texts: tokenizer(texts["text"]), batched=True),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    if new_examples is not None:
        trainer.add_callback(
            WarmStart(
                ws.Dash(batch_size=40),
                forward_loss=lambda model, batch: trainer.compute_loss(model, batch),  # with smoothed labels
                new_examples=new_examples,
            )
        )
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(out / "model")


if __name__ == "__main__":
    june, july = month(6), month(7)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    train(BertForSequenceClassification(BertConfig(vocab_size=len(WORDS), **shape)), june, OUT / "june")

    model = BertForSequenceClassification.from_pretrained(OUT / "june" / "model")
    both = concatenate_datasets([june, july])  # oldest first; the Trainer shuffles, and DASH reads them in order
    train(model, both, OUT / "july", new_examples=len(july))
