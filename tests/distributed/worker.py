"""One process of a team: applies a method, DASH to its share of every batch, and compares with one process alone.

torchrun --nproc-per-node 2 tests/distributed/worker.py CASE ...
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import warmstart as ws
from warmstart.processes import unwrapped

sys.path.insert(0, str(Path(__file__).parents[1]))
from networks import assert_same, batches_for, snapshot, trained


def network():
    """Every way in which a parameter can lie across shards: rows, kernels, biases, odd sizes, an embedding."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, padding=1),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(7, 8, 1), nn.ConvTranspose2d(8, 8, 1)),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
        nn.LayerNorm(5),
        nn.Linear(5, 3),
    )


def share(batch, rank, size, unequal):
    """This process's part of a batch; unequal: process 0 takes all but one example for each other process."""
    inputs, targets = batch
    count = len(inputs)
    bounds = [count * r // size for r in range(size + 1)]
    if unequal:
        bounds = [0, *(count - size + 1 + r for r in range(size))]
    part = slice(bounds[rank], bounds[rank + 1])
    return inputs[part], targets[part]


def wrap(model, kind):
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "hsdp":
        mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[3], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def whole(model):
    return {
        name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in unwrapped(model).named_parameters()
    }


def raises(action, message):
    try:
        action()
    except (ws.InputError, OSError) as error:
        return message in str(error) or "failed (see its own error)" in str(error)
    return False


def drawn(seed):
    """A fresh network; the seed is another one in each process, as where nobody has taken care."""
    model = network()
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_mean):
            tensor.normal_()
    return model


def assert_equal_everywhere(model):
    """Bit for bit, buffers included."""
    for name, tensor in (*whole(model).items(), *model.named_buffers()):
        theirs = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(theirs, tensor)
        assert all(torch.equal(tensor, other) for other in theirs), name


def run_without_data(kind, case):
    """The methods that read no batches."""
    rank = dist.get_rank()
    batch = batches_for((3, 6, 6), 1, size=12, classes=3)[0]
    alone = trained(network(), [batch])
    first = {name: tensor.clone() for name, tensor in drawn(7).state_dict().items()}
    model = wrap(trained(network(), [batch]), kind)
    before = whole(model)
    torch.manual_seed(rank)
    if case == "noise":
        ws.shrink_perturb_(model, noise_std=0.1)
        ws.shrink_perturb_(alone, noise_std=0)
        noise = [p - q for p, q in zip(whole(model).values(), alone.parameters(), strict=True)]
        changed = torch.cat([tensor.flatten() for tensor in noise if tensor.any()])
        assert len(changed) == sum(p.numel() for name, p in alone.named_parameters() if name[0] in "0379")
        assert 0.08 < changed.std() < 0.12
    elif case == "generator":
        ws.shrink_perturb_(model, variant="renate", generator=torch.Generator().manual_seed(rank))
    elif case == "blend":
        ws.shrink_perturb_(model, variant="ash", other=drawn(100 + rank))
        ws.shrink_perturb_(alone, variant="ash", other=drawn(100))
        ws.shrink_perturb_(model, variant="hare-tortoise", other=first)
        ws.shrink_perturb_(alone, variant="hare-tortoise", other=first)
    elif case == "cold":
        ws.cold_(model, drawn(100 + rank))
        ws.cold_(alone, drawn(100))
    elif case == "pull":
        first |= {f"module.{name}": tensor for name, tensor in first.items()} if kind == "ddp" else {}
        for twin in (model, alone):
            cross_entropy(twin(batch[0]), batch[1]).backward()
            ws.l2_init_(twin, first, coef=0.5)
            torch.optim.SGD(twin.parameters(), lr=0.1).step()
    else:
        fresh = drawn(100) if rank == 0 else nn.Linear(2, 2)
        assert raises(lambda: ws.cold_(model, fresh), "another kind of network"), rank
        assert raises(lambda: ws.shrink_perturb_(model, variant="ash", other=fresh), "another kind of network"), rank
    assert_equal_everywhere(model)
    for name, tensor in whole(model).items():
        if case == "refused":
            assert torch.equal(tensor, before[name]), name
        elif case not in ("noise", "generator"):
            torch.testing.assert_close(tensor, dict(alone.named_parameters())[name], rtol=0, atol=1e-6)
    model(batch[0]).sum().backward()  # the wrapped model still trains


WITHOUT_DATA = ("noise", "generator", "blend", "cold", "pull", "refused")


def main():
    dist.init_process_group("gloo")
    for name in sys.argv[1:]:
        kind, case = name.split("-")
        (run_without_data if case in WITHOUT_DATA else run)(kind, case)
        dist.barrier()
        print(f"process {dist.get_rank()} of {dist.get_world_size()}: {name} holds", flush=True)
    os._exit(0)  # gloo's threads sometimes hang at the interpreter's end


SUMMED = 1e-5
"""Processes sum gradients in another order, 1e-7 of the largest; where a neuron's is small its scale moves more."""


INNER = (
    "called on the inner module in {} processes, whose weights may now differ: pass the DistributedDataParallel wrapper"
)


def run(kind, case):
    rank, size = dist.get_rank(), dist.get_world_size()
    batches = batches_for((3, 6, 6), 45, size=12, classes=3)
    alone = trained(network(), batches)
    model = trained(network(), batches)
    words = {"granularity": case} if case in ("kernel", "neuron") else {}
    expected = ws.dash_(alone, batches, cross_entropy, **words)
    before = whole(model)
    model = wrap(model, kind)
    shares = [share(batch, rank, size, case == "unequal") for batch in batches]

    if case == "compiled":
        model = torch.compile(model, backend="eager")
    if case in ("equal", "unequal", "micro", "kernel", "neuron", "compiled"):
        report = ws.dash_(model, shares, cross_entropy, micro_batch_size=2 if case == "micro" else None, **words)
        for name, parameter in whole(model).items():
            torch.testing.assert_close(parameter, dict(alone.named_parameters())[name], rtol=0, atol=SUMMED)
        for ours, theirs in zip(report.layers, expected.layers, strict=True):
            assert (ours.name, ours.neurons) == (theirs.name, theirs.neurons), (ours, theirs)
            assert abs(ours.mean - theirs.mean) < 1e-5, (ours, theirs)
            assert abs(ours.at_lambda - theirs.at_lambda) < 1e-6, (ours, theirs)
            assert sum(ours.histogram) == ours.neurons, ours
        assert report.notes == expected.notes, (report.notes, expected.notes)
        # Nothing tells that the network that is alone is not one of a team.
        assert expected.warnings == (*report.warnings, INNER.format(size))
        model(shares[0][0]).sum().backward()  # the wrapped model still trains
    elif case == "inner":
        inner = model.module
        for act in (
            lambda: ws.dash_(inner, shares, cross_entropy),
            lambda: ws.shrink_perturb_(inner),
            lambda: ws.head_reset_(inner, "9"),
            lambda: ws.cold_(inner, network()),
        ):
            assert act().warnings == (INNER.format(size),)
    elif case == "grouped":
        refuse_grouped(kind, shares)
    elif case == "ema":
        ema = ws.GradientEMA(model, alpha=0.3)
        model.eval()
        for inputs, targets in shares:
            model.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            ema.update()
        ws.dash_from_(model, ema)
        for name, parameter in whole(model).items():
            torch.testing.assert_close(parameter, dict(alone.named_parameters())[name], rtol=0, atol=SUMMED)
    else:
        state = snapshot(model) if kind == "ddp" else None
        if case == "nan" and rank == size - 1:
            shares[-1][0][0] = float("nan")
        if case == "length" and rank == 0:
            shares = iter(shares[:-1])
        if case == "empty" and rank == 0:
            shares = []
        if case == "loader":
            shares = failing(shares) if rank == 0 else iter(shares)
        loss_fn = cross_entropy
        if case == "graph" and rank == 0:
            loss_fn = lambda output, target: cross_entropy(output, target).detach()  # noqa: E731
        messages = {"nan": "not finite", "length": "disagree", "empty": "empty", "loader": "disk", "graph": "graph"}
        assert raises(lambda: ws.dash_(model, shares, loss_fn, tolerance=0), messages[case]), (case, rank)
        for name, parameter in whole(model).items():
            assert torch.equal(parameter, before[name]), name
        if state is not None:
            assert_same(state, snapshot(model))


def refuse_grouped(kind, shares):
    """An output of a grouped transposed convolution lies across its shards, and is scaled only as kernels."""
    torch.manual_seed(0)
    layers = (nn.ConvTranspose2d(4, 4, 1, groups=2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(*layers), nn.Linear(4, 3))
    model = wrap(model, kind)
    before = whole(model)
    for words in ({}, {"granularity": "neuron"}):
        refused = "3.0.weight is sharded, and a scale for each output needs all of it: pass granularity='kernel'"
        assert raises(lambda words=words: ws.dash_(model, shares, cross_entropy, **words), refused), words
    assert all(torch.equal(parameter, before[name]) for name, parameter in whole(model).items())
    ws.dash_(model, shares, cross_entropy, granularity="kernel")
    assert not torch.equal(whole(model)["3.0.weight"], before["3.0.weight"])


def failing(shares):
    yield from shares[:3]
    raise OSError("the disk went away")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
