import copy
import errno
import os

import pytest
import torch
from pytorch_optimizer import SAM
from safetensors.torch import load_file, save_file
from torch import nn

from warmstart.errors import InputError
from warmstart.storage import atomic, checkpoint
from warmstart.storage.checkpoint import load, read_metadata, read_tensors


def make_net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "sgd fused": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True),
    "plain sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "adamw fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True),
    "amsgrad, groups, tensor lr": lambda parameters: torch.optim.AdamW(
        [{"params": list(parameters)[:2], "lr": torch.tensor(0.02)}, {"params": list(parameters)[2:]}],
        lr=torch.tensor(0.01),
        amsgrad=True,
        foreach=False,
    ),
    "sam": lambda parameters: SAM(parameters, torch.optim.SGD, rho=0.1, lr=0.1, momentum=0.9),
}


def train(net, optimizer, batches):
    for images, labels in batches:

        def backward(images=images, labels=labels):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            return loss

        backward()
        optimizer.step(backward) if isinstance(optimizer, SAM) else optimizer.step()


def assert_same(left, right):
    """Equal in type, order of keys, dtype, strides and every bit."""
    assert type(left) is type(right) or (isinstance(left, dict) and isinstance(right, dict))
    if isinstance(left, torch.Tensor):
        assert (left.dtype, left.shape, left.stride()) == (right.dtype, right.shape, right.stride())
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, name, memory_format):
    torch.manual_seed(0)
    batches = [(torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))) for _ in range(6)]
    net = make_net().to(memory_format=memory_format)
    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer, batches[:3])
    checkpoint.save(tmp_path / "c", model=net, optimizer=optimizer)

    saved = load(tmp_path / "c")
    assert_same(saved.model_state, dict(net.state_dict()))
    assert_same(saved.optimizer_state, optimizer.state_dict())

    resumed = make_net().to(memory_format=memory_format)
    resumed.load_state_dict(saved.model_state)
    other = OPTIMIZERS[name](resumed.parameters())
    other.load_state_dict(saved.optimizer_state)
    train(net, optimizer, batches[3:])
    train(resumed, other, batches[3:])
    assert_same(dict(resumed.state_dict()), dict(net.state_dict()))
    assert_same(other.state_dict(), optimizer.state_dict())


def test_every_kind_of_number_comes_back_bit_for_bit(tmp_path):
    tensors = {
        "bf16": torch.randn(3, 5).bfloat16(),
        "half": torch.randn(7).half(),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "long": torch.tensor(2**60 + 1),
        "bool": torch.tensor([True, False, True]),
        "bytes": torch.get_rng_state(),
        "empty": torch.empty(0, 3),
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    checkpoint.save(tmp_path / "c", model={}, tensors=tensors)

    back = load(tmp_path / "c").tensors

    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
        assert back[name].reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def test_metadata_comes_back(tmp_path):
    metadata = {"stage": 3, "accuracy": 0.1 + 0.2, "loss": float("inf"), "name": "dash[alpha=0.1] ±", "rows": [[1], {}]}
    checkpoint.save(tmp_path / "c", model=make_net(), metadata=metadata)

    assert load(tmp_path / "c").metadata == metadata
    assert read_metadata(tmp_path / "c") == metadata
    assert load(tmp_path / "c").optimizer_state is None


def test_other_tools_find_the_weights(tmp_path):
    net = make_net()
    checkpoint.save(tmp_path / "c.safetensors", model=net, optimizer=OPTIMIZERS["sgd"](net.parameters()))

    weights = load_file(tmp_path / "c.safetensors")

    assert set(weights) == {f"model.{name}" for name in net.state_dict()}
    assert torch.equal(weights["model.4.weight"], net[4].weight)


def test_tied_weights_are_stored_once_and_load_under_both_names(tmp_path):
    net = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50, bias=False))
    net[1].weight = net[0].weight
    checkpoint.save(tmp_path / "c", model=net)

    assert set(load_file(tmp_path / "c")) == {"model.0.weight"}
    fresh = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50, bias=False))
    fresh[1].weight = fresh[0].weight
    fresh.load_state_dict(load(tmp_path / "c").model_state)
    assert torch.equal(fresh[1].weight, net[1].weight)


def test_what_was_loaded_outlives_the_file(tmp_path):
    path = tmp_path / "c"
    checkpoint.save(path, model={"w": torch.ones(100_000)})
    state = load(path).model_state
    with path.open("r+b") as file:
        file.truncate(0)  # a tensor that were still mapped to it would crash the process here

    assert state["w"].sum() == 100_000


def test_some_tensors_can_be_read_alone(tmp_path):
    checkpoint.save(tmp_path / "c", model=make_net(), tensors={"scores": torch.arange(3.0), "rng": torch.ones(1)})

    assert set(read_tensors(tmp_path / "c", "tensors.")) == {"scores", "rng"}
    assert read_tensors(tmp_path / "c", "tensors.scores")[""].tolist() == [0, 1, 2]
    assert set(read_tensors(tmp_path / "c", "model.4.")) == {"weight", "bias"}
    assert read_tensors(tmp_path / "c", "nothing") == {}


@pytest.fixture
def saved(tmp_path):
    net = make_net()
    path = tmp_path / "stage-02.safetensors"
    checkpoint.save(path, model=net, optimizer=OPTIMIZERS["sgd"](net.parameters()), metadata={"stage": 2})
    return path


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_named(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])

    for read in (load, read_metadata, lambda path: read_tensors(path, "model.")):
        with pytest.raises(InputError, match=r"stage-02\.safetensors: damaged checkpoint .*delete it"):
            read(saved)


def test_a_flipped_bit_in_the_content_is_noticed(saved):
    intact = saved.read_bytes()
    header = 8 + int.from_bytes(intact[:8], "little")
    for place in (header, (header + len(intact)) // 2, len(intact) - 1):
        data = bytearray(intact)
        data[place] ^= 1
        saved.write_bytes(data)
        with pytest.raises(InputError, match=r"damaged checkpoint \(the content of model\.\S+ has changed\)"):
            load(saved)
        assert read_metadata(saved) == {"stage": 2}  # which reads the header alone


def test_a_changed_note_in_the_header_is_noticed(saved):
    saved.write_bytes(saved.read_bytes().replace(rb"\"stage\": 2", rb"\"stage\": 3"))

    with pytest.raises(InputError, match="the header has changed"):
        read_metadata(saved)


@pytest.mark.parametrize("other", [b'"I32"', b'"U32"'])
def test_a_changed_type_in_the_header_is_noticed(saved, other):
    saved.write_bytes(saved.read_bytes().replace(b'"F32"', other))

    with pytest.raises(InputError, match=r"damaged checkpoint \(the content of model\.\S+ has changed\)"):
        load(saved)


def test_a_changed_name_and_a_changed_shape_in_the_header_are_noticed(saved):
    intact = saved.read_bytes()
    saved.write_bytes(intact.replace(b'"model.4.weight":{', b'"model.5.weight":{'))
    with pytest.raises(InputError, match=r"damaged checkpoint \(tensors are missing or added\)"):
        read_metadata(saved)

    shape, swapped = b'"shape":[4,288]', b'"shape":[288,4]'  # of the linear layer's weight
    assert shape in intact
    saved.write_bytes(intact.replace(shape, swapped, 1))
    with pytest.raises(InputError, match=r"damaged checkpoint \(the content of model\.\S+ has changed\)"):
        load(saved)


def test_other_files_are_refused(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    torch.save({"w": torch.ones(2)}, tmp_path / "pickle.pt")

    with pytest.raises(InputError, match=r"foreign\.safetensors: not a warmstart checkpoint"):
        load(tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"pickle\.pt: damaged checkpoint"):
        load(tmp_path / "pickle.pt")
    with pytest.raises(InputError, match=r"missing: no such checkpoint"):
        load(tmp_path / "missing")


def test_a_later_format_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_VERSION", 9)
    checkpoint.save(tmp_path / "c", model={})
    monkeypatch.undo()

    with pytest.raises(InputError, match="of format 9, but this warmstart reads format 2"):
        load(tmp_path / "c")


def test_a_full_disk_leaves_the_old_checkpoint(saved, monkeypatch):
    before = saved.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(saved, model=make_net())

    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_changes_neither_network_nor_optimizer(tmp_path):
    net = make_net()
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    train(net, optimizer, [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))])
    before = copy.deepcopy((dict(net.state_dict()), optimizer.state_dict()))

    checkpoint.save(tmp_path / "c", model=net, optimizer=optimizer)

    assert_same((dict(net.state_dict()), optimizer.state_dict()), before)
