"""One of two processes: WarmStart under DDP, FSDP2, the Hugging Face Trainer and Lightning equals one process alone.

PYTHONPATH=tests:tests/integrations torchrun --nproc-per-node 2 tests/integrations/worker.py FOLDER
"""

import logging
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from arrivals import draw, last_months, months
from loops import lightning_module, lit
from test_every_loop import DASH, dashed
from test_hugging_face_callback import WarmStart as HuggingFaceWarmStart
from test_hugging_face_callback import started
from test_lightning_callback import Before, fit
from test_lightning_callback import WarmStart as LightningWarmStart
from test_warm_start import Counting
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import warmstart as ws
from stateful_methods import AgeAndRedraw, SlowCopy
from warmstart.integrations import WarmStart
from warmstart.processes import is_sharded


def assert_close(state, expected):
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-6)


def assert_same_everywhere(state):
    for tensor in state.values():
        everyones = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(everyones, tensor.contiguous())
        assert torch.equal(everyones[0], everyones[1])


def full(state):
    return {name: tensor.full_tensor() if is_sharded(tensor) else tensor.clone() for name, tensor in state.items()}


def ddp():
    """Each process draws from a seed of its own; all go on with process 0's weights, wrapper on or off."""
    torch.manual_seed(dist.get_rank())
    loader = DataLoader(months("cnn"), batch_size=4)
    for handed_over in (lambda model: model, lambda model: model.module):
        for method in ("cold", "shrink-perturb[noise_std=0.1]", "head-reset"):
            model = DistributedDataParallel(last_months("cnn"))
            warm_start = WarmStart(ws.parse_method(method), loader, make_model=lambda: draw("cnn"))
            assert not any("inner module" in warning for warning in warm_start.apply_(handed_over(model)).warnings)
            assert_same_everywhere(model.module.state_dict())
            assert not torch.equal(model.module.head.weight, last_months("cnn").head.weight)


def head_reset():
    """Without WarmStart: one draw for all, of which each keeps its part."""
    torch.manual_seed(dist.get_rank())
    replica = DistributedDataParallel(last_months("cnn"))
    ws.head_reset_(replica, "module.head")
    assert_same_everywhere(replica.state_dict())
    alone, sharded = last_months("cnn"), fully_shard(last_months("cnn"), mesh=init_device_mesh("cpu", (2,)))
    for model in (alone, sharded):
        ws.head_reset_(model, "head", generator=torch.Generator().manual_seed(5))
    for name, tensor in full(sharded.state_dict()).items():
        assert torch.equal(tensor, alone.state_dict()[name]), name


def acting_on_updates():
    """The first weights are those of the network without DistributedDataParallel around it."""
    model = DistributedDataParallel(last_months("cnn"))
    warm_start = WarmStart(ws.L2Init(), DataLoader(months("cnn"), batch_size=4), initial=draw("cnn").state_dict())
    warm_start.apply_(model)
    warm_start.after_backward(model, 0)
    assert all(parameter.grad is not None for parameter in model.parameters())


def regularisers():
    """Under DDP all processes do the same; under FSDP2 each works on its part of what one alone gets, or refuses."""
    torch.manual_seed(5)
    first, loader = draw("cnn").state_dict(), DataLoader(months("cnn"), batch_size=4)
    methods = (
        *(ws.Parseval(), ws.Parseval(variant="chung", head="head"), ws.HareTortoise(updates=1)),
        *(ws.SoftWeightRescaling(), ws.NormalizeAndProject(head="head")),
    )
    for method in methods:
        alone, replica = last_months("cnn"), DistributedDataParallel(last_months("cnn"))
        for model in (alone, replica):
            acted_on(model, WarmStart(method, loader, initial=first))
        assert_same_everywhere(replica.module.state_dict())
        assert_close(replica.module.state_dict(), alone.state_dict())
        for name, parameter in replica.module.named_parameters():
            ours, theirs = parameter.grad, alone.get_parameter(name).grad
            assert theirs is None if ours is None else torch.allclose(ours, theirs)

        sharded = last_months("cnn")
        warm_start = WarmStart(method, loader, initial=first)
        warm_start.prepare(sharded)
        fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
        if isinstance(method, (ws.Parseval, ws.HareTortoise)):
            refused(partial(warm_start.apply_, sharded), "use DDP")
            assert_close(full(sharded.state_dict()), last_months("cnn").state_dict())
        else:
            acted_on(sharded, warm_start)
            assert_close(full(sharded.state_dict()), alone.state_dict())


def acted_on(model, warm_start):
    """One update without the optimizer's."""
    warm_start.prepare(model)
    warm_start.apply_(model)
    warm_start.after_backward(model, 0)
    warm_start.after_step(model, 0)


def fsdp2():
    """Each process loads its share of a batch; the first one is a single example, and all take it."""
    model = fully_shard(last_months("gpt2"), mesh=init_device_mesh("cpu", (2,)))
    data = Counting(months("gpt2"))
    warm_start = WarmStart(DASH, DataLoader(data, batch_size=4, shuffle=True), new_examples=8)
    assert "averaged 4 batches" in str(warm_start.apply_(model))
    assert len(data.read) == {0: 1 + 3 * 3, 1: 1 + 3 * 2}[dist.get_rank()]
    assert_close(full(model.state_dict()), dashed("gpt2")[0].state_dict())
    assert warm_start.apply_(model) is None


def refused(action, message):
    with pytest.raises(ws.InputError, match=message):
        action()


def state_under_ddp():
    """A slow copy follows from the weights, which are everywhere the same; activations are not."""
    model, loader = DistributedDataParallel(last_months("cnn")), DataLoader(months("cnn"), batch_size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    warm_start = WarmStart(SlowCopy(), loader)
    warm_start.apply_(model, optimizer)
    for step in range(3):
        optimizer.zero_grad()
        model(**months("cnn").batch(8 * dist.get_rank(), 8 * dist.get_rank() + 8))["loss"].backward()
        warm_start.after_backward(model, step)
        optimizer.step()
        warm_start.after_step(model, step)
    state = warm_start.state_dict()["state"]
    assert_same_everywhere({name: state[name] for name, _ in model.module.named_parameters()})
    assert not torch.equal(state["head.weight"], model.module.head.weight)
    assert torch.equal(warm_start.measured(model).head.weight, state["head.weight"])

    before = full(model.module.state_dict())
    refused(lambda: WarmStart(AgeAndRedraw(), loader).apply_(model), "sees activations, which differ between processes")
    assert_close(model.module.state_dict(), before)


class LooksAtUnits(ws.Method):
    def on_new_data(self, model, stage):
        stage.units()


def state_under_fsdp2():
    """Refused before anything changes."""
    model = fully_shard(last_months("gpt2"), mesh=init_device_mesh("cpu", (2,)))
    loader = DataLoader(months("gpt2"), batch_size=4)
    before, warm_start = full(model.state_dict()), WarmStart(SlowCopy(), loader)
    warm_start.apply_(model)
    refused(lambda: warm_start.after_step(model, 0), "keeps state, which is not saved with an FSDP2 model: use DDP")
    refused(lambda: warm_start.measured(model), "measures another network, which FSDP2 cannot copy: use DDP")
    refused(lambda: WarmStart(LooksAtUnits(), loader).apply_(model), "reads units, which FSDP2 spreads")
    resumed = WarmStart(SlowCopy(), loader)
    resumed.load_state_dict({**warm_start.state_dict(), "state": {"head.weight": torch.ones(3)}})
    refused(lambda: resumed.apply_(model), "keeps state")
    assert_close(full(model.state_dict()), before)


def hugging_face(folder):
    assert_close(started(last_months("cnn"), folder, HuggingFaceWarmStart(DASH)), dashed("cnn")[0].state_dict())
    torch.manual_seed(dist.get_rank())
    cold = HuggingFaceWarmStart(ws.Cold(), make_model=lambda: draw("cnn"))
    assert_same_everywhere(started(last_months("cnn"), folder, cold))


def lightning(folder):
    before = Before()
    fit(lit(last_months("cnn"), 4), folder, LightningWarmStart(DASH), before, strategy="ddp", devices=2)
    assert_close(before.network, dashed("cnn")[0].state_dict())
    assert_same_everywhere(before.network)


def lightning_fsdp2(folder):
    from lightning.pytorch.strategies import ModelParallelStrategy

    class Sharded(lightning_module()):
        def configure_model(self):
            fully_shard(self.network, mesh=self.device_mesh["data_parallel"])

    class FullBefore(Before):
        def on_train_start(self, trainer, module):
            self.network = full(module.network.state_dict())

    before, strategy = FullBefore(), ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    fit(Sharded(last_months("cnn"), 4), folder, LightningWarmStart(DASH), before, strategy=strategy, devices=2)
    assert_close(before.network, dashed("cnn")[0].state_dict())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    dist.init_process_group("gloo")
    ddp()
    head_reset()
    acting_on_updates()
    regularisers()
    fsdp2()
    state_under_ddp()
    state_under_fsdp2()
    hugging_face(folder)
    lightning(folder)
    lightning_fsdp2(folder)
    dist.barrier()
    print(f"process {dist.get_rank()} is done")
    dist.destroy_process_group()
