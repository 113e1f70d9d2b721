"""FIRE against the polar factor by SVD, and on the layers and weights that people have."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

import reference
import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained
from warmstart.methods import fire


def copied(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def reasons(report):
    return {entry.name: entry.reason for entry in report.left_alone}


LAYERS = {
    "tall": lambda: nn.Linear(20, 50),
    "wide": lambda: nn.Linear(50, 20),
    "square": lambda: nn.Linear(40, 40),
    "one output": lambda: nn.Linear(7, 1),
    "conv1d": lambda: nn.Conv1d(6, 10, 5),
    "conv2d": lambda: nn.Conv2d(10, 6, (3, 2)),
    "conv3d": lambda: nn.Conv3d(4, 4, 3),
    "grouped": lambda: nn.Conv2d(12, 8, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(6, 10, 3),
    "grouped transposed": lambda: nn.ConvTranspose1d(12, 8, 3, groups=2),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_each_weight_becomes_the_scaled_polar_factor(kind):
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[kind]())
    layer, before = model[0], copied(model)
    transposed = getattr(layer, "transposed", False)
    expected = reference.fire(layer.weight, getattr(layer, "groups", 1), transposed)
    (row,) = ws.fire_(model, tolerance=1e-5).layers
    torch.testing.assert_close(layer.weight.double(), expected, rtol=0, atol=2e-4 * expected.abs().max().item())
    assert torch.equal(layer.bias, before["0.bias"])
    assert row.numbers["deviation"] <= 1e-5
    assert row.numbers["norm ratio"] == pytest.approx((expected.norm() / before["0.weight"].norm()).item(), rel=1e-4)
    assert row.numbers["matrices"] == math.prod(layer.weight.shape[2:]) * getattr(layer, "groups", 1)


def test_it_is_where_the_published_iteration_goes_in_far_fewer_iterations():
    """512 x 512 and Gaussian: the 10 iterations that the authors take end far from an isometry."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 512, bias=False))
    nn.init.normal_(model[0].weight)
    weight = model[0].weight.detach().clone()
    row = ws.fire_(model).layers[0]

    def deviation(x):
        return ((x.T @ x - torch.eye(512)).norm() / math.sqrt(512)).item()

    assert deviation(reference.newton_schulz(weight, 10)) > 0.3
    published = reference.newton_schulz(weight, 60)
    assert deviation(published) < 1e-4
    torch.testing.assert_close(model[0].weight, published, rtol=0, atol=1e-4)
    assert row.numbers["deviation"] == pytest.approx(deviation(model[0].weight.detach()), abs=1e-5)
    assert row.numbers["iterations"] <= 16, "22 without stretching the first ones"


@pytest.mark.parametrize(
    ("shape", "left_by_10", "left_by_5"),
    [((64, 64), 0.24, 0.64), ((256, 256), 0.34, 0.84), ((512, 512), 0.40, 0.90), ((256, 64), 0.00, 0.49)],
)
def test_how_far_the_published_iterations_leave_gaussian_matrices_from_an_isometry(shape, left_by_10, left_by_5):
    """The table of docs/fire.md."""
    torch.manual_seed(0)
    weight = torch.randn(shape)
    for iterations, left in ((10, left_by_10), (5, left_by_5)):
        model = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
        model[0].weight.data.copy_(weight)
        report = ws.fire_(model, variant="published", max_iterations=40 if iterations == 10 else 5)
        assert report.layers[0].numbers["deviation"] == pytest.approx(left, abs=0.015)
        warned = f"not isometric after {iterations} iterations, as large square matrices are" in str(report.warnings)
        assert warned == (left > 0)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_published_variant_repeats_the_authors_iterations(kind):
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[kind]())
    layer = model[0]
    transposed, groups = getattr(layer, "transposed", False), getattr(layer, "groups", 1)

    expected = reference.fire(layer.weight, groups, transposed, polar=lambda w: reference.newton_schulz(w, 10))
    (row,) = ws.fire_(model, variant="published").layers
    torch.testing.assert_close(layer.weight.double(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert row.numbers["iterations"] == 10


def test_a_second_call_leaves_the_weights():
    model = trained(cnn(), batches_for((3, 8, 8), 4))
    ws.fire_(model)
    once = copied(model)
    ws.fire_(model)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, once[name], rtol=0, atol=1e-4)


def test_resnet18_is_isometric_to_the_tolerance_within_the_iterations_allowed():
    from warmstart.models.registry import model_factory

    torch.manual_seed(0)
    model = model_factory("resnet18")(10, 3, 32)
    for layer in (model.layer3, model.layer4):  # seconds of large matrices that show nothing new
        layer.requires_grad_(False)
    report = ws.fire_(model)
    convolutions = {name for name, p in model.named_parameters() if p.dim() == 4 and p.requires_grad}
    assert {row.name for row in report.layers} == convolutions | {"fc.weight"}
    assert max(row.numbers["deviation"] for row in report.layers) <= 1e-4
    assert not report.warnings


class Attending(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.block = nn.TransformerEncoderLayer(8, 2, 16)
        self.cross = nn.MultiheadAttention(8, 2, **sizes)
        self.head = nn.Linear(8, 4)


def test_with_attention_only_queries_and_keys_change():
    torch.manual_seed(0)
    model = Attending(kdim=6, vdim=5)
    before = copied(model)
    report = ws.fire_(model)
    packed, apart = "block.self_attn.in_proj_weight", ("cross.q_proj_weight", "cross.k_proj_weight")
    assert changed(model, before) == {packed, *apart}
    for part in (slice(0, 8), slice(8, 16)):
        expected = reference.fire(before[packed][part])
        torch.testing.assert_close(model.state_dict()[packed][part].double(), expected, rtol=0, atol=1e-4)
    assert torch.equal(model.state_dict()[packed][16:], before[packed][16:]), "values stay"
    for name in apart:
        torch.testing.assert_close(model.state_dict()[name].double(), reference.fire(before[name]), rtol=0, atol=1e-4)
    assert "only queries and keys" in reasons(report)["head.weight"]


class Packed(nn.Module):
    """As timm's Attention: qkv in one, queries first."""

    def __init__(self, dim=8, heads=2, **attributes):
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        vars(self).update(attributes)


class Apart(nn.Module):
    """Three layers side by side, named alike but for the role."""

    def __init__(self, names, dim=8):
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(dim, 2 * dim if name in ("qk", "kv") else dim))
        self.out = nn.Linear(dim, dim)


class Vision(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.attn = attention
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 16)
        self.head = nn.Linear(8, 4)


def test_of_a_packed_linear_layer_queries_and_keys_change_each_apart():
    torch.manual_seed(0)
    model = Vision(Packed())
    before = copied(model)
    report = ws.fire_(model)
    assert changed(model, before) == {"attn.qkv.weight"}
    for part in (slice(0, 8), slice(8, 16)):
        expected = reference.fire(before["attn.qkv.weight"][part])
        torch.testing.assert_close(model.attn.qkv.weight[part].double(), expected, rtol=0, atol=1e-4)
    assert torch.equal(model.attn.qkv.weight[16:], before["attn.qkv.weight"][16:]), "values stay"
    assert report.layers[0].numbers["matrices"] == 2
    assert "only queries and keys" in reasons(report)["fc.weight"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("query", "key", "value"), {"query", "key"}),
        (("q_proj", "k_proj", "v_proj"), {"q_proj", "k_proj"}),
        (("to_q", "to_k", "to_v"), {"to_q", "to_k"}),
        (("wq", "wk", "wv"), {"wq", "wk"}),
        (("q", "kv"), {"q", "kv"}),
        (("qk", "v"), {"qk"}),
    ],
)
def test_linear_layers_side_by_side_are_told_by_their_names(names, expected):
    torch.manual_seed(0)
    model = Vision(Apart(names))
    before = copied(model)
    ws.fire_(model)
    assert changed(model, before) == {f"attn.{name}.weight" for name in expected}
    for name in expected:
        now, then = model.state_dict()[f"attn.{name}.weight"], before[f"attn.{name}.weight"]
        torch.testing.assert_close(now[:8].double(), reference.fire(then[:8]), rtol=0, atol=1e-4)
        if name == "qk":
            torch.testing.assert_close(now[8:].double(), reference.fire(then[8:]), rtol=0, atol=1e-4)
        else:
            assert torch.equal(now[8:], then[8:]), "the values of a packed kv stay"


@pytest.mark.parametrize(
    "attributes", [{"key_dim": 4}, {"head_first": True}, {}], ids=["TinyViT", "MaxViT", "query_key_value"]
)
def test_rows_in_an_order_that_cannot_be_told_are_left_with_the_remedy(attributes):
    model = nn.Sequential(Vision(Packed(**attributes)), Vision(Packed()))
    if not attributes:
        model[0].attn.query_key_value = model[0].attn.qkv
        del model[0].attn.qkv
    before = copied(model)
    report = ws.fire_(model)
    assert changed(model, before) == {"1.attn.qkv.weight"}
    (reason,) = (why for name, why in reasons(report).items() if name.startswith("0.attn.q") and why != "bias")
    assert "may be ordered by head: put an nn.Linear for each in its place" in reason


def test_in_a_language_model_all_linear_layers_change_packed_ones_part_by_part():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), Packed(), nn.LayerNorm(8), nn.Linear(8, 9))
    before = copied(model)
    ws.fire_(model)
    assert changed(model, before) == {"1.qkv.weight", "1.proj.weight", "3.weight"}
    for part in (slice(0, 8), slice(8, 16), slice(16, 24)):
        expected = reference.fire(before["1.qkv.weight"][part])
        torch.testing.assert_close(model[1].qkv.weight[part].double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "BEiT", "Swin", "CLIPVision"])
def test_vision_transformers_of_hugging_face(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    options = {"image_size": 8, "patch_size": 4, **sizes}
    if kind == "Swin":
        options = {"image_size": 8, "patch_size": 2, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 2}
    names = {"BEiT": "Beit"}
    config = getattr(transformers, f"{names.get(kind, kind)}Config")(**options)
    model = getattr(transformers, f"{names.get(kind, kind)}Model")(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    before = copied(model)
    ws.fire_(model)
    expected = {
        f"{name}.weight"
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in ("query", "key", "q_proj", "k_proj")
    }
    assert expected
    assert changed(model, before) == expected
    for name in expected:
        torch.testing.assert_close(model.state_dict()[name].double(), reference.fire(before[name]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_polar_variant_is_exact_and_where_the_iteration_goes(kind):
    torch.manual_seed(0)
    model, twin = (nn.Sequential(LAYERS[kind]()) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    expected = reference.fire(model[0].weight, getattr(model[0], "groups", 1), getattr(model[0], "transposed", False))
    report = ws.fire_(model, variant="polar")
    ws.fire_(twin, tolerance=1e-6)
    largest = expected.abs().max().item()
    torch.testing.assert_close(model[0].weight.double(), expected, rtol=0, atol=1e-6 * largest)
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=0, atol=1e-4 * largest)
    assert report.layers[0].numbers["deviation"] < 1e-6
    assert "solved exactly" in report.notes[0]


def test_the_polar_variant_leaves_dead_units_dead_as_the_iteration_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.LayerNorm(12))
    with torch.no_grad():
        model[0].weight[3] = 0
    twin = copy.deepcopy(model)
    report = ws.fire_(model, variant="polar")
    ws.fire_(twin)
    assert not model[0].weight[3].any()
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=0, atol=1e-4)
    assert "1 parameter not isometric, as matrices" in report.warnings[0]


def test_the_polar_variant_of_half_precision_and_channels_last_weights():
    model = cnn().to(torch.bfloat16).to(memory_format=torch.channels_last)
    weight = model[0].weight.detach().clone()
    strides = model[0].weight.stride()
    ws.fire_(model, variant="polar")
    assert model[0].weight.dtype == torch.bfloat16
    assert model[0].weight.stride() == strides
    torch.testing.assert_close(model[0].weight.double(), reference.fire(weight), rtol=0, atol=4e-3)


def test_filter_fn_chooses_the_layers():
    model = Attending()
    before = copied(model)
    ws.fire_(model, filter_fn=lambda layer, name: name in ("patches", "head"))
    assert changed(model, before) == {"patches.weight", "head.weight"}


def test_what_is_no_linear_map_or_cannot_be_an_isometry_stays_and_is_named():
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(5, 4),
            "tied": nn.Linear(4, 5, bias=False),
            "lstm": nn.LSTM(4, 3),
            "norm": nn.LayerNorm(4),
            "depthwise": nn.Conv2d(4, 8, 3, groups=4),
            "zero": nn.Linear(4, 4),
            "frozen": nn.Linear(4, 4).requires_grad_(False),
            "usual": nn.Linear(4, 4),
        }
    )
    model["tied"].weight = model["table"].weight
    nn.init.zeros_(model["zero"].weight)
    before = copied(model)
    report = ws.fire_(model)
    assert changed(model, before) == {"usual.weight"}
    left = reasons(report)
    assert set(left) == {name for name, _ in model.named_parameters()} - {"usual.weight"}
    for name, reason in {
        "table.weight": "embedding",
        "lstm.weight_ih_l0": "LSTM is neither",
        "depthwise.weight": "depthwise",
        "zero.weight": "all zero",
        "frozen.weight": "frozen",
        "usual.bias": "bias",
    }.items():
        assert reason in left[name]


def test_a_head_that_shares_the_embeddings_weights_stays_whichever_comes_first():
    model = nn.ModuleDict({"head": nn.Linear(4, 5, bias=False), "body": nn.Linear(4, 4), "table": nn.Embedding(5, 4)})
    model["table"].weight = model["head"].weight
    before = copied(model)
    ws.fire_(model)
    assert changed(model, before) == {"body.weight"}


def test_tied_weights_are_changed_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    expected = reference.fire(model[0].weight)
    assert len(ws.fire_(model).layers) == 1
    torch.testing.assert_close(model[2].weight.double(), expected, rtol=0, atol=1e-4)


def test_dead_units_stay_dead_the_others_become_isometric_and_the_report_warns():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.LayerNorm(12), nn.Conv2d(6, 6, 3))
    with torch.no_grad():
        model[0].weight[3:5] = 0
        model[2].weight[:, :, 1, 1] = 0
    report = ws.fire_(model)
    alive = torch.tensor([i for i in range(12) if i not in (3, 4)])
    assert not model[0].weight[3:5].any()
    singular = torch.linalg.svdvals(model[0].weight[alive])
    torch.testing.assert_close(singular, torch.ones(10), rtol=0, atol=1e-4)
    assert not model[2].weight[:, :, 1, 1].any()
    assert report.layers[0].numbers["deviation"] == pytest.approx(math.sqrt(2 / 12), abs=1e-4)
    assert report.layers[0].numbers["iterations"] == 40
    (warning,) = report.warnings
    assert "2 parameters not isometric after 40 iterations" in warning
    assert "2.weight" in warning, "the furthest is named"


def test_singular_values_a_million_times_smaller_than_the_largest_still_become_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    u, _, vt = torch.linalg.svd(torch.randn(64, 64))
    with torch.no_grad():
        model[0].weight.copy_(u @ torch.logspace(0, -6, 64).diag() @ vt)
    report = ws.fire_(model)
    assert report.layers[0].numbers["deviation"] <= 1e-4
    torch.testing.assert_close(torch.linalg.svdvals(model[0].weight), torch.ones(64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_neither_tiny_nor_huge_weights_lose_their_direction(scale):
    model, twin = mlp(), mlp()
    with torch.no_grad():
        model[0].weight.mul_(scale)
    ws.fire_(model)
    ws.fire_(twin)
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=0, atol=1e-4)  # what the iteration leaves


def test_channels_last_weights_change_and_keep_their_layout():
    model, twin = cnn(), cnn()
    model.to(memory_format=torch.channels_last)
    strides = model[0].weight.stride()
    ws.fire_(model)
    ws.fire_(twin)
    assert model[0].weight.stride() == strides
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4), (torch.float64, 1e-10)], ids=str
)
def test_other_precisions_keep_theirs_and_are_computed_in_fp32_at_least(dtype, atol):
    model = mlp().to(dtype)
    expected = reference.fire(model[0].weight)
    report = ws.fire_(model, tolerance=1e-10 if dtype == torch.float64 else 1e-4)
    assert model[0].weight.dtype == dtype
    torch.testing.assert_close(model[0].weight.double(), expected, rtol=0, atol=atol)
    assert report.layers[0].numbers["deviation"] <= 1e-4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_it_is_the_same_inside_every_mode(mode):
    model, twin = mlp(), mlp()
    with mode():
        ws.fire_(model)
    ws.fire_(twin)
    assert_same(snapshot(twin), snapshot(model))
    trained(model, batches_for((6,), 2), steps=1)


def test_computed_in_small_pieces_it_is_the_same(monkeypatch):
    model, twin = trained(cnn(), batches_for((3, 8, 8), 4)), trained(cnn(), batches_for((3, 8, 8), 4))
    ws.fire_(twin, tolerance=1e-5)
    monkeypatch.setattr(fire, "CHUNK", 1)
    ws.fire_(model, tolerance=1e-5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True], ids=["tall", "wide"])
def test_tall_and_wide_matrices_split_first_end_at_the_same_polar_factor(monkeypatch, transposed):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(80, 20) if transposed else nn.Linear(20, 80), nn.LayerNorm(20 if transposed else 80)
    )
    with torch.no_grad():
        (model[0].weight if transposed else model[0].weight.T)[3] = 0  # a dead one: it stays
    twin = copy.deepcopy(model)
    split = []
    monkeypatch.setattr(fire, "CHUNK", 1)
    monkeypatch.setattr(torch.linalg, "qr", lambda w, qr=torch.linalg.qr: split.append(w.shape) or qr(w))
    ws.fire_(model)
    assert split == [(1, 80, 20)]
    monkeypatch.setattr(fire, "TALL", 1000)
    ws.fire_(twin)
    assert len(split) == 1
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=0, atol=1e-4)
    dead = model[0].weight if transposed else model[0].weight.T
    assert not dead[3].any()


def test_gpt2_is_refused_with_the_layer_that_is_not_changed_and_the_remedy():
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=9, bos_token_id=0, eos_token_id=0, **sizes))
    with pytest.raises(ws.InputError, match=r"c_attn.weight: a Conv1D of transformers .* put an nn.Linear"):
        ws.fire_(model)
    block = model.transformer.h[0].mlp
    block.c_proj = nn.Linear(32, 8)
    assert [row.name for row in ws.fire_(model).layers] == ["transformer.h.0.mlp.c_proj.weight"]


def with_momentum():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    cross_entropy(model(torch.ones(8, 6)), torch.zeros(8, dtype=torch.long)).backward()
    optimizer.step()
    return model, optimizer


def test_the_report_has_columns_of_its_own():
    model = mlp()
    titles, first, *_ = str(ws.fire_(model)).splitlines()[1:]
    assert titles.split() == ["parameter", "layer", "norm", "ratio", "matrices", "iterations", "deviation"]
    assert first.split()[:2] == ["0.weight", "Linear"]
    assert first.split()[3] == "1"
    with pytest.raises(ValueError, match="no distribution of scales"):
        ws.fire_(model).figure()


def test_the_optimizer_is_reset_unless_it_is_to_be_kept():
    for state, left in (("reset", 0), ("keep", 6)):
        model, optimizer = with_momentum()
        report = ws.fire_(model, optimizer=optimizer, optimizer_state=state)
        assert len(optimizer.state) == left
        assert optimizer.param_groups[0]["lr"] == 0.05
        assert any(note.startswith("optimizer state") for note in report.notes)
    assert "optimizer not touched" in ws.fire_(mlp()).notes


def test_apply_false_only_looks():
    model, optimizer = with_momentum()
    before = snapshot(model)
    report = ws.fire_(model, optimizer=optimizer, apply=False)
    assert_same(before, snapshot(model))
    assert len(optimizer.state) == 6
    assert not report.applied
    assert ws.fire_(model).layers == report.layers


def test_without_normalisation_it_warns():
    assert any("no normalisation layers" in warning for warning in ws.fire_(mlp(norm=False)).warnings)


def infinite():
    model = mlp()
    with torch.no_grad():
        model[3].weight[0, 0] = math.inf  # not the first layer: the first must not have changed
    return model


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (infinite, {}, "3.weight holds NaN or infinite weights"),
        (lambda: nn.Sequential(nn.Embedding(5, 4)), {}, "no weights to make isometric"),
        (mlp, {"filter_fn": lambda layer, name: False}, "excluded by filter_fn"),
        (mlp, {"tolerance": 0}, "tolerance is 0"),
        (mlp, {"max_iterations": 0}, "max_iterations is 0"),
        (mlp, {"tolerance": "x"}, "tolerance is 'x'"),
        (mlp, {"max_iterations": 2.5}, "max_iterations is 2.5; it must be a whole number"),
        (mlp, {"optimizer": "sgd"}, "optimizer is a str: pass the torch.optim.Optimizer"),
        (mlp, {"optimizer_state": "rest"}, "did you mean 'reset'"),
        (mlp, {"variant": "polr"}, "did you mean 'polar'"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_changes(make, arguments, message):
    model = make()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.fire_(model, **arguments)
    assert_same(before, snapshot(model))


def test_sharded_weights_are_refused():
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(mlp(), mesh=dist.init_device_mesh("cpu", (1,)))
        before = [p.to_local().detach().clone() for p in model.parameters()]
        with pytest.raises(ws.InputError, match=r"0.weight is sharded.*before fully_shard"):
            ws.fire_(model)
        assert all(torch.equal(p.to_local(), b) for p, b in zip(model.parameters(), before, strict=True))
    finally:
        dist.destroy_process_group()
