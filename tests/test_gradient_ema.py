import contextlib
import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import reference
import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained
from warmstart.average_gradient import average_gradient
from warmstart.gradient_pass import gradient_pass

IN_FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}
"""An entry of a gradient is a sum of some ten terms of up to 1, rounded to 6e-8 in an order that a machine chooses."""


def prepared(count=5):
    batches = batches_for((6,), count)
    return trained(mlp(), batches), batches


def loss_of(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_it_is_the_moving_average_in_closed_form(alpha):
    model, batches = prepared()
    gradients = reference.gradients_of(copy.deepcopy(model), batches, cross_entropy)
    ema = average_gradient(model, batches, loss_of, alpha=alpha, tolerance=0)
    assert set(ema.average) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    for name, average in ema.average.items():
        expected = reference.moving_average(gradients[name], alpha)
        torch.testing.assert_close(average.double(), expected, **IN_FLOAT32)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.999])
def test_many_batches_neither_overflow_nor_vanish(alpha):
    """The sum behind the average grows by 1 / (1-alpha) a batch until it is folded."""
    model = nn.Linear(3, 1, bias=False)
    ema = ws.GradientEMA(model, alpha)
    gradients = torch.randn(3000, 1, 3, generator=torch.Generator().manual_seed(0))
    for gradient in gradients:
        model.weight.grad = gradient
        ema.update()
    expected = reference.moving_average(list(gradients), alpha)
    torch.testing.assert_close(ema.average["weight"].double(), expected, **IN_FLOAT32)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.9])
def test_what_is_left_out_adds_at_most_the_tolerance(alpha):
    """At most (1-alpha)^K max ||g||."""
    model, batches = prepared(count=60)
    full = average_gradient(model, batches, loss_of, alpha=alpha, tolerance=0)
    part = average_gradient(model, batches, loss_of, alpha=alpha, tolerance=0.05)
    assert part.left_out == 60 - math.ceil(math.log(0.05) / math.log(1 - alpha))
    gradients = reference.gradients_of(model, batches, cross_entropy)
    for name, average in full.average.items():
        norms = [gradient.norm() for gradient in gradients[name]]
        assert (average - part.average[name]).norm() <= 0.05 * max(norms)
        torch.testing.assert_close(part.largest[name], max(norms[part.left_out :]))
    assert not full.largest  # nothing was left out: nothing to bound


def test_it_counts_batches_and_examples():
    model, batches = prepared()
    ema = average_gradient(model, [*batches, *batches_for((6,), 1, size=3)], loss_of, alpha=0.9)
    assert (ema.updates, ema.examples, ema.left_out) == (6, 43, 0)
    ema = average_gradient(model, batches, loss_of, alpha=1.0)
    assert (ema.updates, ema.examples, ema.left_out) == (1, 8, 4)


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_micro_batches_give_the_same_average(size):
    model, batches = prepared()
    whole = average_gradient(model, batches, loss_of)
    pieces = average_gradient(model, batches, loss_of, micro_batch_size=size)
    for name, average in whole.average.items():
        torch.testing.assert_close(pieces.average[name], average, **IN_FLOAT32)
    assert pieces.updates == whole.updates
    assert pieces.examples == whole.examples


def test_weights_let_a_loss_be_a_sum_over_examples():
    model, batches = prepared()
    mean, total = ws.GradientEMA(model), ws.GradientEMA(model)
    for inputs, targets in batches:
        for ema, reduction, weight in ((mean, "mean", 1.0), (total, "sum", 1 / len(targets))):
            model.zero_grad()
            cross_entropy(model(inputs), targets, reduction=reduction).backward()
            ema.update(weight)
        model.eval()
    for name in mean.average:
        torch.testing.assert_close(mean.average[name], total.average[name], **IN_FLOAT32)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_it_is_kept_in_fp32_or_better(dtype, kept):
    model = nn.Linear(4, 2, dtype=dtype)
    ema = ws.GradientEMA(model, alpha=0.5)
    model(torch.ones(3, 4, dtype=dtype)).mean().backward()
    ema.update()
    ema.update()
    assert {tensor.dtype for tensor in ema.average.values()} == {kept}
    torch.testing.assert_close(ema.average["bias"], torch.full((2,), -0.75 / 2, dtype=kept), rtol=1e-3, atol=0)


def test_sparse_gradients_count_as_the_dense_ones_they_stand_for():
    model = nn.Linear(4, 10, bias=False)
    index = torch.tensor([[0, 3, 3]])
    averages = []
    for sparse in (True, False):
        model.zero_grad(set_to_none=True)
        nn.functional.embedding(index, model.weight, sparse=sparse).square().sum().backward()
        assert model.weight.grad.is_sparse == sparse
        ema = ws.GradientEMA(model)
        ema.update()
        averages.append(ema.average["weight"])
    torch.testing.assert_close(averages[0], averages[1])


def test_it_takes_one_copy_of_the_weights_and_none_before_the_first_update():
    model, batches = prepared()
    ema = ws.GradientEMA(model)
    assert not ema.average
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    ema.update()
    where = {name: average.data_ptr() for name, average in ema.average.items()}
    ema.update()
    assert where == {name: average.data_ptr() for name, average in ema.average.items()}
    assert sum(average.numel() for average in ema.average.values()) == sum(
        parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("1.")
    )


def test_filter_fn_chooses_the_layers():
    model, batches = prepared()
    ema = average_gradient(model, batches, loss_of, filter_fn=lambda layer, name: name == "3")
    assert set(ema.average) == {"3.weight", "3.bias"}


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, math.nan])
def test_a_rate_out_of_range_is_refused(alpha):
    with pytest.raises(ws.InputError, match="alpha"):
        ws.GradientEMA(mlp(), alpha)


def test_an_empty_batch_is_refused_rather_than_averaged_as_zero():
    model, batches = prepared()
    batches[2] = (torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    before = snapshot(model)
    with pytest.raises(ws.InputError, match="holds no examples"):
        average_gradient(model, batches, loss_of)
    assert_same(before, snapshot(model))


class Counting(nn.Module):
    """Changes buffers in eval mode too, in place, by a new tensor and from none."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.full((6,), math.nan))
        self.register_buffer("cache", None)

    def forward(self, x):
        self.calls += 1
        self.last = x.mean(0)
        self.cache = x
        return self.layer(x)


def test_buffers_that_a_forward_pass_changes_come_back():
    model = Counting()
    before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    average_gradient(model, batches_for((6,), 3), loss_of)
    assert dict(model.named_buffers()).keys() == before.keys() == {"calls", "last"}
    for name, (buffer, value) in before.items():
        assert model.get_buffer(name) is buffer
        torch.testing.assert_close(buffer, value, rtol=0, atol=0, equal_nan=True)
    assert model.cache is None


def test_a_batch_norm_that_will_not_leave_train_mode_keeps_its_statistics():
    class Stubborn(nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(True)

    model = nn.Sequential(nn.Linear(6, 5), Stubborn(5), nn.Linear(5, 4))
    before = snapshot(model)
    average_gradient(model, batches_for((6,), 3), loss_of)
    assert_same(before, snapshot(model))


def test_precision_switches_come_back_even_after_an_exception():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        with torch.autocast("cpu", torch.bfloat16):
            with contextlib.suppress(OSError), gradient_pass(mlp()):
                assert not torch.is_autocast_enabled("cpu")
                assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
                raise OSError("gone")
            assert torch.is_autocast_enabled("cpu")
            with gradient_pass(mlp(), full_precision=False):
                assert torch.is_autocast_enabled("cpu")
                assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, True)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, True)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="set in this way since PyTorch 2.9")
def test_precision_may_have_been_set_in_either_of_pytorchs_two_ways():
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = torch.get_float32_matmul_precision(), matmul.fp32_precision, conv.fp32_precision
    try:
        torch.set_float32_matmul_precision("medium")  # bf16 on a CPU
        with gradient_pass(mlp()):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"

        matmul.fp32_precision, conv.fp32_precision = "ieee", "tf32"  # the way above cannot be read from here on
        for _ in range(2):
            with gradient_pass(mlp()):
                assert (matmul.fp32_precision, conv.fp32_precision) == ("ieee", "ieee")
            assert (matmul.fp32_precision, conv.fp32_precision) == ("ieee", "tf32")
    finally:
        torch.set_float32_matmul_precision(before[0])
        matmul.fp32_precision, conv.fp32_precision = before[1:]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_inside_every_gradient_mode(mode):
    """A callback may run in any; a generator may make its batches there too."""
    model, batches = prepared()
    expected = average_gradient(model, batches, loss_of)
    with mode():
        found = average_gradient(model, ((x * 1, y * 1) for x, y in batches), loss_of)
    for name, average in expected.average.items():
        assert torch.equal(average, found.average[name])
    for inputs, targets in batches[:1]:
        cross_entropy(model(inputs), targets).backward()  # the weights are ordinary ones still


def test_batches_may_be_objects_that_only_the_users_own_loss_understands():
    model, batches = prepared()
    objects = [SimpleNamespace(x=inputs, y=targets) for inputs, targets in batches]
    expected = average_gradient(model, batches, loss_of)
    found = average_gradient(model, objects, lambda network, batch: loss_of(network, (batch.x, batch.y)))
    assert torch.equal(expected.average["0.weight"], found.average["0.weight"])
    assert (found.updates, found.examples) == (5, 0)


def test_convolutions_in_any_memory_format():
    batches = batches_for((3, 8, 8), 3)
    plain = average_gradient(cnn(), batches, loss_of)
    other = average_gradient(cnn().to(memory_format=torch.channels_last), batches, loss_of)
    for name, average in plain.average.items():
        torch.testing.assert_close(other.average[name], average, rtol=1e-4, atol=1e-6)


class ArcFace(nn.Module):
    """A loss function with weights of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, features, targets):
        cosines = nn.functional.normalize(features) @ nn.functional.normalize(self.weight).T
        return cross_entropy(8 * cosines, targets)


@pytest.mark.parametrize("before", [None, torch.ones(4, 4)], ids=["none", "some"])
@pytest.mark.parametrize("finite", [True, False])
def test_weights_of_the_loss_function_keep_their_gradients(before, finite):
    model, batches = prepared()
    loss = ArcFace()
    loss.weight.grad = before
    if finite:
        ws.dash_(model, batches, loss)
        ws.diagnose(model, batches, loss, only=["gradient-norm", "sharpness"])
    else:
        batches[-1][0][0] = math.nan
        with pytest.raises(ws.InputError, match="not finite"):
            ws.dash_(model, batches, loss)
    assert loss.weight.grad is before
    assert before is None or torch.equal(before, torch.ones(4, 4))


def test_weights_of_the_loss_function_keep_their_gradients_when_a_backward_pass_fails():
    model, batches = prepared()
    loss = ArcFace()
    loss.weight.grad = before = torch.ones(4, 4)

    def stop(gradient):
        raise OSError("gone")

    def loss_and_stop(output, targets):
        output.register_hook(stop)
        return loss(output, targets)

    with pytest.raises(OSError, match="gone"):
        ws.dash_(model, batches, loss_and_stop)
    assert loss.weight.grad is before
    assert torch.equal(before, torch.ones(4, 4))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_update_refuses_gradients_that_overflowed_and_stays_as_it_was(bad):
    model, batches = prepared()
    ema, expected = ws.GradientEMA(model), ws.GradientEMA(model)
    for number, (inputs, targets) in enumerate(batches):
        model.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        if number in (0, 3):  # a GradScaler's first scales are too high
            model[3].weight.grad[1, 2] = bad
            with pytest.raises(ws.InputError, match=r"3\.weight is not finite: skip this batch, as GradScaler"):
                ema.update()
        else:
            ema.update()
            expected.update()
    assert ema.updates == 3
    for name, average in expected.average.items():
        assert torch.equal(ema.average[name], average)
    ws.dash_from_(model, ema)


def test_a_network_that_needs_autocast_is_told_what_to_do():
    model, batches = prepared()
    model[3].bfloat16()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=r"full-precision gradients: open torch\.autocast in forward_loss"):
        ws.dash_(model, batches, cross_entropy)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ws.InputError, match=r"pass full_precision=False, or open torch\.autocast"):
            ws.dash_(model, batches, cross_entropy)
        assert_same(before, snapshot(model))
        ws.dash_(model, batches, cross_entropy, full_precision=False)

    def under_autocast(network, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(network, batch)

    ws.dash_(model, batches, forward_loss=under_autocast)


def test_an_error_of_the_users_own_is_not_taken_for_a_precision():
    model, batches = prepared()

    def failing(network, batch):
        raise RuntimeError("an unknown type of graph")

    with pytest.raises(RuntimeError, match="an unknown type"):
        average_gradient(model, batches, failing)
