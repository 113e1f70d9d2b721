"""FSDP2: each process passes its share of every batch, and full weights never come together.

torchrun --nproc-per-node 2 examples/fsdp2.py
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import warmstart as ws

DEVICE = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


def month(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """This process's share of three batches of 200, oldest first; a real project reads its files here."""
    patterns = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (3, 200), generator=generator)
    inputs = patterns[labels] + 2 * torch.randn(3, 200, 64, generator=generator)
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    return [(x[mine].to(DEVICE), y[mine].to(DEVICE)) for x, y in zip(inputs, labels, strict=True)]


def train(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], epochs: int = 10) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
    return loss.item()


dist.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo")
torch.manual_seed(0)
blocks = [nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU()) for _ in range(3)]
model = nn.Sequential(*blocks, nn.Linear(64, 10)).to(DEVICE)
mesh = init_device_mesh(DEVICE.type, (dist.get_world_size(),))
for layer in (*model, model):
    fully_shard(layer, mesh=mesh)

june, july = month(1), month(2)
train(model, june)
report = ws.dash_(model, june + july, cross_entropy, new_examples=600)  # in every process; oldest batch first
loss = train(model, june + july)
if dist.get_rank() == 0:
    print(report)
    print(f"loss after training on both months: {loss:.3f}")
dist.destroy_process_group()
