"""Four small networks with two months of data each; a network takes ``**batch`` and returns its loss."""

import copy

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

KINDS = ("gpt2", "vit", "lstm", "cnn")
EXAMPLES = 16
"""In both months together, half of them new."""


class Examples(Dataset):
    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}

    def batch(self, start, stop):
        return {name: column[start:stop] for name, column in self.columns.items()}


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 20)

    def forward(self, input_ids, labels):
        logits = self.head(self.norm(self.lstm(self.embedding(input_ids))[0]))
        return {"loss": cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), "logits": logits}


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, pixel_values, labels):
        logits = self.head(self.norm(self.conv(pixel_values)).relu().mean((2, 3)))
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def draw(kind):
    """A network with fresh weights."""
    if kind == "lstm":
        return LanguageModel()
    if kind == "cnn":
        return Classifier()
    from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}
        drop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2LMHeadModel(GPT2Config(vocab_size=20, bos_token_id=0, eos_token_id=0, **sizes, **drop))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_labels=4, **sizes))


def months(kind, examples=EXAMPLES):
    """All data so far, oldest first."""
    generator = torch.Generator().manual_seed(3)
    if kind in ("gpt2", "lstm"):
        tokens = torch.randint(0, 20, (examples, 8), generator=generator)
        return Examples(input_ids=tokens, labels=tokens)
    labels = torch.randint(0, 4, (examples,), generator=generator)
    return Examples(pixel_values=torch.randn(examples, 3, 8, 8, generator=generator), labels=labels)


_LAST_MONTHS = {}


def last_months(kind):
    """A network trained on the first half of the data."""
    if kind not in _LAST_MONTHS:
        torch.manual_seed(0)
        network, data = draw(kind), months(kind)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        network.train()
        for _ in range(8):
            optimizer.zero_grad()
            network(**data.batch(0, EXAMPLES // 2))["loss"].backward()
            optimizer.step()
        optimizer.zero_grad()
        _LAST_MONTHS[kind] = network
    return copy.deepcopy(_LAST_MONTHS[kind])


def weights(network):
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def assert_equal(ours, theirs):
    ours, theirs = (weights(n) if isinstance(n, nn.Module) else n for n in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
