import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import reference
import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained

SHAPES = {"mlp": (mlp, (6,)), "cnn": (cnn, (3, 8, 8))}


def prepared(kind, count=5):
    make, shape = SHAPES[kind]
    batches = batches_for(shape, count)
    return trained(make(), batches), batches


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("lambda_", [0.0, 0.3])
def test_equals_the_reference(kind, alpha, lambda_):
    model, batches = prepared(kind)
    expected = reference.dash(model, batches, cross_entropy, alpha, lambda_)
    norms = {name: p.clone() for name, p in model.named_parameters() if name not in expected}

    report = ws.dash_(model, batches, cross_entropy, alpha=alpha, lambda_=lambda_, granularity="kernel")

    parameters = dict(model.named_parameters())
    for layer in report.layers:
        scales, weights = expected[layer.name]
        torch.testing.assert_close(parameters[layer.name].double(), weights, rtol=0, atol=1e-6)
        assert layer.mean == pytest.approx(sum(scales) / len(scales), abs=1e-5)
        assert layer.neurons == len(scales)
        assert layer.at_lambda == pytest.approx(sum(s <= lambda_ for s in scales) / len(scales), abs=1e-6)
    assert {layer.name for layer in report.layers} == set(expected)
    for name, before in norms.items():
        assert torch.equal(parameters[name], before), name


@pytest.mark.parametrize(("alpha", "lambda_"), [(0.1, 0.05), (0.3, 0.3), (1.0, 0.0)])
def test_equals_the_reference_on_resnet18(alpha, lambda_):
    from warmstart.models.registry import model_factory

    torch.manual_seed(0)
    model = model_factory("resnet18")(10, 3, 32)
    batches = batches_for((3, 32, 32), 2, size=4, classes=10)
    trained(model, batches, steps=2, lr=1e-3)
    expected = reference.dash(model, batches, cross_entropy, alpha, lambda_)
    report = ws.dash_(model, batches, cross_entropy, alpha=alpha, lambda_=lambda_, granularity="kernel")
    parameters = dict(model.named_parameters())
    for name, (_, weights) in expected.items():
        torch.testing.assert_close(parameters[name].double(), weights, rtol=0, atol=1e-6)
    assert sum(layer.sign_tests for layer in report.layers) == 64 * 128 + 128 * 256 + 256 * 512


def test_tolerance_zero_reads_all_and_equals_the_reference():
    model, batches = prepared("mlp", count=80)
    expected = reference.dash(model, batches, cross_entropy, 0.3, 0.3)
    ws.dash_(model, batches, cross_entropy, tolerance=0)
    for name, (_, weights) in expected.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].double(), weights, rtol=0, atol=1e-6)


def test_the_tail_alone_gives_the_same_average_and_scales():
    """The average to a relative 1e-6, every scale to 1e-5, but for neurons that are counted as undetermined."""
    from warmstart.average_gradient import average_gradient
    from warmstart.losses import as_forward_loss

    full, batches = prepared("cnn", count=80)
    tail, _ = prepared("cnn", count=80)
    loss = as_forward_loss(cross_entropy)
    everything = average_gradient(full, batches, loss, tolerance=0)
    last = average_gradient(tail, batches, loss)
    for name, average in everything.average.items():
        error = torch.linalg.vector_norm(average - last.average[name])
        assert error <= 1e-6 * last.largest[name], name

    weights = {name: p.detach().clone() for name, p in full.named_parameters()}
    ws.dash_(full, batches, cross_entropy, tolerance=0)
    report = ws.dash_(tail, batches, cross_entropy)
    others = dict(tail.named_parameters())
    apart = sum(
        int(((p - others[name]).abs() > 1e-5 * weights[name].abs().clamp(min=1e-8) + 1e-9).sum())
        for name, p in full.named_parameters()
    )
    assert apart <= sum(layer.undetermined for layer in report.layers)
    assert any("41 older batches left out" in note for note in report.notes)


def test_neurons_that_the_tail_does_not_determine_are_counted():
    """The first input column is nonzero only in batches too old to be read."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(9, 2))
    batches = batches_for((2, 4), 60, classes=2)
    for inputs, _ in batches[-45:]:
        inputs[:, 0] = 0.0
    report = ws.dash_(model, batches, cross_entropy, apply=False)
    assert {layer.name: layer.undetermined for layer in report.layers}["0.weight"] == 3
    assert "3 neurons undetermined" in str(report)
    full = ws.dash_(model, batches, cross_entropy, tolerance=0, apply=False)
    assert sum(layer.undetermined for layer in full.layers) == 0


def test_restores_training_flags_gradients_and_buffers():
    model, batches = prepared("cnn")
    model[1].eval()  # a frozen batch norm inside a training network
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    _, flags, gradients = snapshot(model)
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    with torch.no_grad():
        ws.dash_(model, batches, cross_entropy)
    _, flags_after, gradients_after = snapshot(model)
    assert flags == flags_after
    assert all(torch.equal(gradients[name], gradients_after[name]) for name in gradients)
    assert all(torch.equal(buffers[name], b) for name, b in model.named_buffers())


def test_apply_false_touches_nothing():
    model, batches = prepared("cnn")
    before = snapshot(model)
    report = ws.dash_(model, batches, cross_entropy, apply=False)
    assert_same(before, snapshot(model))
    assert "not applied" in str(report)


def nan_batch(batches):
    batches[-1][0][0] = math.nan
    return batches


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (nan_batch, {}, "not finite"),
        (lambda b: [], {}, "empty"),
        (lambda b: iter([]), {}, "empty"),
        (lambda b: b, {"alpha": 0.0}, "alpha"),
        (lambda b: b, {"alpha": math.nan}, "alpha"),
        (lambda b: b, {"lambda_": 1.5}, "lambda_"),
        (lambda b: b, {"tolerance": 1.0}, "tolerance"),
        (lambda b: b, {"granularity": "kernels"}, "did you mean 'kernel'"),
        (lambda b: b, {"micro_batch_size": 0}, "micro_batch_size"),
        (lambda b: b, {"filter_fn": lambda module, name: False}, "no weights to scale"),
        (lambda b: [x for x, _ in b], {}, "not \\(input, target\\)"),
        (lambda b: b, {"loss_fn": lambda o, t: cross_entropy(o, t).detach()}, "no gradient graph"),
        (lambda b: b, {"loss_fn": lambda o, t: cross_entropy(o, t, reduction="none")}, "must be one number"),
        (lambda b: b, {"loss_fn": lambda o, t: 1.0}, "is a float"),
    ],
)
def test_leaves_the_model_bit_for_bit_unchanged_if_anything_is_wrong(spoil, arguments, message):
    model, batches = prepared("cnn")
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    batches = spoil(batches)
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.dash_(model, batches, **{"loss_fn": cross_entropy, **arguments})
    assert_same(before, snapshot(model))


def test_an_exception_of_the_users_own_leaves_the_model_unchanged():
    model, batches = prepared("cnn")
    before = snapshot(model)

    def failing():
        yield from batches[:2]
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        ws.dash_(model, failing(), cross_entropy, tolerance=0)
    assert_same(before, snapshot(model))


def test_a_shuffling_loader_is_refused_with_the_remedy():
    model, batches = prepared("mlp")
    data = TensorDataset(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))
    with pytest.raises(ws.InputError, match=r"ws\.oldest_first"):
        ws.dash_(model, DataLoader(data, 8, shuffle=True), cross_entropy)
    twin, _ = prepared("mlp")
    ws.dash_(model, ws.oldest_first(DataLoader(data, 8, shuffle=True), batch_size=8), cross_entropy)
    ws.dash_(twin, batches, cross_entropy)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_micro_batches_give_the_same_weights():
    model, batches = prepared("cnn")
    twin, _ = prepared("cnn")
    ws.dash_(model, batches, cross_entropy)
    ws.dash_(twin, batches, cross_entropy, micro_batch_size=3)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_scales_do_not_depend_on_the_size_of_gradient_or_weight():
    model, batches = prepared("mlp")
    plain = ws.dash_(model, batches, cross_entropy, apply=False)
    tiny = ws.dash_(model, batches, lambda o, t: 1e-25 * cross_entropy(o, t), apply=False)
    for ours, theirs in zip(plain.layers, tiny.layers, strict=True):
        assert ours.mean == pytest.approx(theirs.mean, abs=1e-5), ours.name


def test_zero_gradients_and_zero_weights_scale_by_lambda():
    model, batches = prepared("mlp")
    with torch.no_grad():
        model[0].weight[0] = 0.0
    for inputs, _ in batches:
        inputs[:] = 0.0  # the first layer's weights get no signal
    report = ws.dash_(model, batches, cross_entropy, lambda_=0.4)
    first = report.layers[0]
    assert first.name == "0.weight"
    assert first.at_lambda == 1.0
    assert first.mean == pytest.approx(0.4)


def test_frozen_unused_and_shared_parameters():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.again = self.first
            self.tied = nn.Linear(4, 4, bias=False)
            self.tied.weight = self.first.weight
            self.unused = nn.Linear(4, 4)
            self.frozen = nn.Linear(4, 4)
            self.norm = nn.LayerNorm(4)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.norm(self.frozen(self.tied(torch.relu(self.first(x)))))

    torch.manual_seed(0)
    model = Net()
    before = {name: p.clone() for name, p in model.named_parameters()}
    report = ws.dash_(model, batches_for((4,), 3), cross_entropy, lambda_=0.5)
    reasons = {entry.name: entry.reason for entry in report.left_alone}
    assert [layer.name for layer in report.layers] == ["first.weight", "first.bias"]
    assert "frozen" in reasons["frozen.weight"]
    assert "no gradient" in reasons["unused.weight"]
    assert reasons["norm.weight"] == "norm layer"
    ratio = (model.first.weight / before["first.weight"]).mean(1)
    assert torch.all(ratio >= 0.5 - 1e-6), "a tied weight must be shrunk once, not twice"


def test_granularity_neuron_gives_one_scale_for_each_filter():
    model, batches = prepared("cnn")
    before = model[3].weight.clone()
    report = ws.dash_(model, batches, cross_entropy, granularity="neuron")
    layer = {layer.name: layer for layer in report.layers}["3.weight"]
    assert (layer.neurons, layer.sign_tests) == (8, 0)
    ratio = (model[3].weight / before).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5, atol=0)


def test_1x1_kernels_are_scaled_like_the_rows_of_a_linear_layer():
    """On images of one pixel a 1x1 convolution is a linear layer."""
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
    linear = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
    weights = {
        name: tensor.reshape(linear.state_dict()[name].shape) for name, tensor in convolution.state_dict().items()
    }
    linear.load_state_dict(weights)
    batches = batches_for((6, 1, 1), 4)
    ws.dash_(convolution, batches, cross_entropy)
    ws.dash_(linear, [(inputs.flatten(1), targets) for inputs, targets in batches], cross_entropy)
    for ours, theirs in zip(convolution.parameters(), linear.parameters(), strict=True):
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=0, atol=1e-6)


def test_channels_last_weights_really_change():
    model, batches = prepared("cnn")
    twin, _ = prepared("cnn")
    twin.to(memory_format=torch.channels_last)
    ws.dash_(model, batches, cross_entropy)
    ws.dash_(twin, batches, cross_entropy)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_bfloat16_weights_keep_their_dtype_and_get_fp32_scales():
    model, batches = prepared("mlp")
    model.to(torch.bfloat16)
    report = ws.dash_(model, [(x.bfloat16(), y) for x, y in batches], cross_entropy)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert len({round(layer.mean, 6) for layer in report.layers}) > 1


def test_mappings_and_forward_loss():
    class Output(dict):
        pass

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = mlp()

        def forward(self, inputs, labels):
            return Output(loss=cross_entropy(self.body(inputs), labels))

    pairs = batches_for((6,), 4)
    mappings = [{"inputs": x, "labels": y} for x, y in pairs]
    by_mapping, by_forward = Net(), Net()
    ws.dash_(by_mapping, mappings)
    ws.dash_(by_forward, pairs, forward_loss=lambda m, b: m(*b)["loss"])
    for ours, theirs in zip(by_mapping.parameters(), by_forward.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ws.InputError, match="without loss_fn"):
        ws.dash_(by_mapping, pairs)


def test_only_the_tail_of_an_indexable_stream_is_loaded():
    model, _ = prepared("mlp")

    class Lazy(torch.utils.data.Dataset):
        read: list[int]

        def __len__(self):
            return 1_000_000

        def __getitem__(self, index):
            self.read.append(index)
            return torch.randn(6), index % 4

    data = Lazy()
    data.read = []
    ws.dash_(model, DataLoader(data, batch_size=10), cross_entropy, alpha=0.3)
    assert data.read == list(range(1_000_000 - 39 * 10, 1_000_000))


def test_a_generator_is_consumed_once_in_constant_memory():
    model, batches = prepared("mlp", count=60)
    twin, _ = prepared("mlp", count=60)
    ws.dash_(model, (batch for batch in batches), cross_entropy)
    ws.dash_(twin, batches, cross_entropy)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_gradient_ema_in_a_loop_of_ones_own_equals_dash_():
    model, batches = prepared("cnn")
    twin, _ = prepared("cnn")
    ema = ws.GradientEMA(model, alpha=0.3)
    model.eval()
    for inputs, targets in batches:
        model.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        ema.update()
    ws.dash_from_(model, ema, lambda_=0.3)
    ws.dash_(twin, batches, cross_entropy)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_gradient_ema_reads_and_changes_nothing():
    model, batches = prepared("mlp")
    ema = ws.GradientEMA(model, alpha=0.5)
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    before = snapshot(model)
    ema.update()
    ema.update(weight=2.0)
    assert_same(before, snapshot(model))
    expected = -(0.5 * 0.5 + 0.5 * 2.0) * model[0].weight.grad
    torch.testing.assert_close(ema.average["0.weight"], expected)
    model.zero_grad(set_to_none=True)
    ema.update()
    torch.testing.assert_close(ema.average["0.weight"], 0.5 * expected)


def test_an_empty_or_foreign_average_is_refused():
    model, batches = prepared("mlp")
    other = mlp(width=5)
    ema = ws.GradientEMA(other)
    before = snapshot(model)
    with pytest.raises(ws.InputError, match="empty"):
        ws.dash_from_(model, ema)
    cross_entropy(other(batches[0][0]), batches[0][1]).backward()
    ema.update()
    with pytest.raises(ws.InputError, match="another model"):
        ws.dash_from_(model, ema)
    assert_same(before, snapshot(model))


def averaged(model, batches):
    ema = ws.GradientEMA(model)
    for inputs, targets in batches:
        model.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        ema.update()
    return ema


def test_an_average_over_other_weights_of_the_same_names_and_shapes_is_refused():
    model, batches = prepared("mlp")
    ema, twin = averaged(model, batches), copy.deepcopy(model)
    pair = copy.deepcopy((model, ema))
    for network, average in ((twin, ema), (model, copy.deepcopy(ema))):
        before = snapshot(network)
        with pytest.raises(ws.InputError, match=r"0\.weight was replaced .* or a copy: .*deepcopy\(\(model, ema\)\)"):
            ws.dash_from_(network, average)
        assert_same(before, snapshot(network))
    model[3] = nn.Linear(12, 4)
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=r"3\.weight was replaced after the GradientEMA was made"):
        ws.dash_from_(model, ema)
    assert_same(before, snapshot(model))
    ws.dash_from_(*pair)  # which were copied together
    twin_ema = averaged(twin, batches)
    twin.double()  # which keeps its parameters
    ws.dash_from_(twin, twin_ema)


def test_without_normalisation_it_warns_and_says_why():
    model = mlp(norm=False)
    report = ws.dash_(model, batches_for((6,), 2), cross_entropy)
    assert "no normalisation layers" in str(report)


def test_the_report_fits_80_columns_and_is_plain_data():
    import json

    model, batches = prepared("cnn")
    report = ws.dash_(model, batches, cross_entropy)
    assert all(len(line) <= 80 for line in str(report).splitlines())
    layers = json.loads(json.dumps(report.to_dict()))["layers"]
    assert [sum(layer["histogram"]) for layer in layers] == [layer["neurons"] for layer in layers]


def test_the_report_draws_a_figure(tmp_path):
    model, batches = prepared("cnn")
    ws.dash_(model, batches, cross_entropy).figure(str(tmp_path / "scales.png"))
    assert (tmp_path / "scales.png").read_bytes().startswith(b"\x89PNG")
