"""DASH on every kind of layer, against a loop over neurons that are listed by hand."""

import math

import pytest
import torch
from torch import nn

import warmstart as ws


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Attention(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.layer = nn.MultiheadAttention(4, 2, batch_first=True, **sizes)
        self.sizes = sizes

    def forward(self, x):
        keys = torch.cat([x, x], -1)[..., : self.sizes.get("kdim", 4)]
        values = torch.cat([x, x], -1)[..., : self.sizes.get("vdim", 4)]
        return self.layer(x, keys, values)[0]


class Two(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x.flip(0))


def rows(weight):
    return [(i,) for i in range(weight.shape[0])]


def kernels(weight):
    return [(i, j) for i in range(weight.shape[0]) for j in range(weight.shape[1])]


def filters_of_transposed(groups):
    def split(weight):
        per_group = weight.shape[0] // groups
        return [
            (slice(g * per_group, (g + 1) * per_group), out) for g in range(groups) for out in range(weight.shape[1])
        ]

    return split


def whole(weight):
    return [...]


def case(name, model, shape, splits, granularity="kernel-or-row"):
    return pytest.param(model, shape, splits, granularity, id=name)


def pointwise(name, make, shape, outputs):
    """A 1x1 convolution by kernels, and by its outputs either way; 2d and 3d ones in channels-last, too."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(shape))
    layouts = {"": torch.contiguous_format, **({"-channels-last": last} if last else {})}
    return [
        case(
            f"1x1-{name}-{granularity}{ending}",
            lambda layout=layout: nn.Sequential(make()).to(memory_format=layout),
            shape,
            {"weight": split, "bias": whole},
            granularity,
        )
        for granularity, split in (("kernel", kernels), ("kernel-or-row", outputs), ("neuron", outputs))
        for ending, layout in layouts.items()
    ]


GATES = {"weight_ih_l0": rows, "weight_hh_l0": rows, "bias_ih_l0": whole, "bias_hh_l0": whole}
PACKED = {"in_proj_weight": rows, "in_proj_bias": whole, "out_proj.weight": rows, "out_proj.bias": whole}
APART = {f"{key}_proj_weight": rows for key in "qkv"} | {"in_proj_bias": whole, "out_proj.weight": rows}

CASES = [
    case("linear", lambda: Recurrent(nn.Linear(4, 3)), (5, 4), {"weight": rows, "bias": whole}),
    case("bilinear", lambda: Two(nn.Bilinear(4, 4, 3)), (5, 4), {"weight": rows, "bias": whole}),
    case("conv1d", lambda: nn.Sequential(nn.Conv1d(4, 6, 3)), (5, 4, 8), {"weight": kernels, "bias": whole}),
    case("conv2d", lambda: nn.Sequential(nn.Conv2d(4, 6, 3)), (5, 4, 8, 8), {"weight": kernels, "bias": whole}),
    case("conv3d", lambda: nn.Sequential(nn.Conv3d(4, 6, 3)), (5, 4, 5, 5, 5), {"weight": kernels, "bias": whole}),
    case("grouped", lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2)), (5, 4, 8, 8), {"weight": kernels}),
    case("depthwise", lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4)), (5, 4, 8, 8), {"weight": kernels}),
    case("kernels", lambda: nn.Sequential(nn.Conv2d(4, 6, 3)), (5, 4, 8, 8), {"weight": kernels}, "kernel"),
    *pointwise("1d", lambda: nn.Conv1d(4, 6, 1), (5, 4, 8), rows),
    *pointwise("2d", lambda: nn.Conv2d(4, 6, 1), (5, 4, 8, 8), rows),
    *pointwise("3d", lambda: nn.Conv3d(4, 6, 1), (5, 4, 5, 5, 5), rows),
    *pointwise("grouped", lambda: nn.Conv2d(4, 6, 1, groups=2), (5, 4, 8, 8), rows),
    *pointwise("depthwise", lambda: nn.Conv2d(4, 4, 1, groups=4), (5, 4, 8, 8), rows),
    *pointwise("transposed", lambda: nn.ConvTranspose2d(4, 6, 1), (5, 4, 8, 8), filters_of_transposed(1)),
    *pointwise(
        "grouped-transposed", lambda: nn.ConvTranspose2d(4, 6, 1, groups=2), (5, 4, 8, 8), filters_of_transposed(2)
    ),
    case("filters", lambda: nn.Sequential(nn.Conv2d(4, 6, 3)), (5, 4, 8, 8), {"weight": rows}, "neuron"),
    case("transposed1d", lambda: nn.Sequential(nn.ConvTranspose1d(4, 6, 3)), (5, 4, 8), {"weight": kernels}),
    case("transposed2d", lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3)), (5, 4, 8, 8), {"weight": kernels}),
    case("transposed3d", lambda: nn.Sequential(nn.ConvTranspose3d(4, 6, 3)), (5, 4, 5, 5, 5), {"weight": kernels}),
    case(
        "transposed-filters",
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3)),
        (5, 4, 8, 8),
        {"weight": filters_of_transposed(1)},
        "neuron",
    ),
    case(
        "grouped-transposed-filters",
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2)),
        (5, 4, 8, 8),
        {"weight": filters_of_transposed(2), "bias": whole},
        "neuron",
    ),
    case("attention", Attention, (5, 7, 4), PACKED),
    case("attention-apart", lambda: Attention(kdim=6, vdim=5), (5, 7, 4), APART),
    case("rnn", lambda: Recurrent(nn.RNN(4, 3, batch_first=True)), (5, 7, 4), GATES),
    case(
        "lstm",
        lambda: Recurrent(nn.LSTM(4, 3, batch_first=True, proj_size=2)),
        (5, 7, 4),
        GATES | {"weight_hr_l0": rows},
    ),
    case("gru", lambda: Recurrent(nn.GRU(4, 3, batch_first=True, dropout=0.5, num_layers=2)), (5, 7, 4), GATES),
    case("lstm-cell", lambda: Recurrent(nn.LSTMCell(4, 3)), (5, 4), {"weight_ih": rows, "bias_hh": whole}),
]


def squared(target):
    return lambda model, batch: (model(batch) - target).square().mean()


@pytest.mark.parametrize(("make", "shape", "splits", "granularity"), CASES)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_equals_neurons_listed_by_hand(make, shape, splits, granularity):
    torch.manual_seed(0)
    model = make()
    batches = [torch.randn(shape) for _ in range(4)]
    loss = squared(0.7)
    model.eval()
    average = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    for batch in batches:
        gradients = torch.autograd.grad(loss(model, batch), list(model.parameters()))
        for name, gradient in zip(average, gradients, strict=True):
            average[name] = 0.7 * average[name] - 0.3 * gradient.double()
    before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    model.train()

    ws.dash_(model, batches, forward_loss=loss, lambda_=0.2, granularity=granularity)

    parameters = dict(model.named_parameters())
    for key, split in splits.items():
        name = next(full for full in parameters if full.endswith(key) and (key in ("weight", "bias") or "." in full))
        expected = before[name].clone()
        for neuron in split(expected):
            w, g = before[name][neuron], average[name][neuron]
            cosine = float((w * g).sum() / math.sqrt(float((w * w).sum() * (g * g).sum())))
            expected[neuron] = min(1.0, max(0.2, cosine)) * w
        torch.testing.assert_close(parameters[name].detach().double(), expected, rtol=0, atol=1e-6, msg=name)


def test_embedding_rows_that_did_not_occur_are_left():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3, padding_idx=0), nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 2))
    before = model[0].weight.detach().clone()
    batches = [(torch.tensor([[1, 2], [2, 4], [0, 1]]), torch.tensor([0, 1, 0])) for _ in range(3)]
    report = ws.dash_(model, batches, nn.functional.cross_entropy, lambda_=0.1)
    changed = (model[0].weight.detach() != before).any(1).tolist()
    assert changed == [False, True, True, False, True, False]
    assert report.layers[0].neurons == 6


def test_sparse_gradients_give_the_same_as_dense_ones():
    weights = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.EmbeddingBag(6, 3, sparse=sparse), nn.LayerNorm(3), nn.Linear(3, 2))
        batches = [(torch.randint(0, 6, (8, 4)), torch.randint(0, 2, (8,))) for _ in range(3)]
        ws.dash_(model, batches, nn.functional.cross_entropy)
        weights.append(model[0].weight.detach())
    torch.testing.assert_close(*weights)


def test_a_layer_of_ones_own_in_three_lines(monkeypatch):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return x @ self.matrix

    from warmstart.layers import neurons

    monkeypatch.setattr(neurons, "_SPLITS", dict(neurons._SPLITS))
    torch.manual_seed(0)
    model = nn.Sequential(Scaled(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert "no rule for Scaled.matrix" in str(ws.validate(model))
    ws.register_layer(Scaled, lambda layer, granularity: {"matrix": (0,)})
    report = ws.dash_(model, [(torch.randn(8, 4), torch.randint(0, 2, (8,)))], nn.functional.cross_entropy)
    assert (report.layers[0].name, report.layers[0].neurons) == ("0.matrix", 3)
    ws.register_layer(Scaled, {"matrix": (0,)})  # which is the same
    again = ws.dash_(model, [(torch.randn(8, 4), torch.randint(0, 2, (8,)))], nn.functional.cross_entropy)
    assert (again.layers[0].name, again.layers[0].neurons) == ("0.matrix", 3)
    with pytest.raises(ws.InputError, match=r"subclass of nn\.Module"):
        ws.register_layer("Scaled", lambda layer, granularity: {})
    with pytest.raises(ws.InputError, match=r"rule is \(0,\): give names and dimensions"):
        ws.register_layer(Scaled, (0,))
    ws.register_layer(Scaled, {"matrix": (2,)})
    with pytest.raises(ws.InputError, match=r"Scaled names dimensions \(2,\) of 0.matrix, \(4, 3\)"):
        ws.GradientEMA(model)


def test_compiled_and_checkpointed_models():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self, reentrant):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU())
            self.head = nn.Linear(8, 4)
            self.reentrant = reentrant

        def forward(self, x):
            return self.head(checkpoint(self.body, x.requires_grad_(), use_reentrant=self.reentrant))

    batches = [(torch.randn(8, 6), torch.randint(0, 4, (8,))) for _ in range(3)]
    results = []
    for model in (Checkpointed(False), Checkpointed(True), torch.compile(Checkpointed(False), backend="eager")):
        ws.dash_(model, [(x.clone(), y) for x, y in batches], nn.functional.cross_entropy)
        results.append([p.detach().clone() for p in model.parameters()])
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_autocast_and_a_scaled_loss_outside_change_nothing():
    batches = [(torch.randn(8, 6), torch.randint(0, 4, (8,))) for _ in range(3)]

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4))

    plain, outside = network(), network()
    ws.dash_(plain, batches, nn.functional.cross_entropy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ws.dash_(outside, batches, lambda o, t: 2**16 * nn.functional.cross_entropy(o, t))
    for ours, theirs in zip(plain.parameters(), outside.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
