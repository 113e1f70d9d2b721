import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import warmstart as ws
from warmstart.errors import InputError
from warmstart.models.registry import model_factory
from warmstart.models.vit import vit


def small():
    torch.manual_seed(0)
    return vit(3, 3, 8, width=8, depth=2, heads=2)


def changed(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_parameters_number_what_theory_says():
    block = 2 * 2 * 192 + 4 * 193 * 192 + 193 * 768 + 769 * 192
    expected = (3 * 16 + 1) * 192 + 192 + 65 * 192 + 12 * block + 2 * 192 + 193 * 10

    assert sum(p.numel() for p in vit(10, 3, 32).parameters()) == expected == 5_362_762
    assert vit(10, 1, (8, 12), patch=2).positions.shape == (1, 1 + 4 * 6, 192)


def test_it_is_pytorchs_pre_norm_encoder_with_the_same_weights():
    model = small().eval()
    blocks = [nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True) for _ in "12"]
    for ours, theirs in zip(model.blocks, blocks, strict=True):
        packed = {f"self_attn.in_proj_{kind}": getattr(ours.attention.qkv, kind) for kind in ("weight", "bias")}
        parts = {"self_attn.out_proj": ours.attention.out, "linear1": ours.mlp[0], "linear2": ours.mlp[2],
                 "norm1": ours.norm1, "norm2": ours.norm2}  # fmt: skip
        others = {f"{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("weight", "bias")}
        theirs.load_state_dict(packed | others)
    images = torch.randn(4, 3, 8, 8)

    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(4, 4, 48)
    x = patches @ model.patches.weight.flatten(1).T + model.patches.bias
    x = torch.cat([model.token.expand(4, 1, 8), x], 1) + model.positions
    for block in blocks:
        x = block.train()(x)  # in eval mode PyTorch takes another path, which rounds otherwise
    expected = model.head(model.norm(x)[:, 0])

    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-6)


def test_weights_begin_as_in_deit():
    model = vit(10, 3, 32, depth=2)

    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            assert layer.bias.eq(0).all()
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.08)  # 1,920 weights at least
    assert model.positions.std().item() == pytest.approx(0.02, rel=0.05)


def test_fire_makes_isometries_of_queries_and_keys_alone():
    model = small()
    before = copy.deepcopy(model.state_dict())

    ws.fire_(model)

    assert changed(model, before) == {"blocks.0.attention.qkv.weight", "blocks.1.attention.qkv.weight"}
    query, key, value = model.blocks[0].attention.qkv.weight.split(8)
    for one in (query, key):
        torch.testing.assert_close(one @ one.T, torch.eye(8), rtol=0, atol=1e-3)
    assert torch.equal(value, before["blocks.0.attention.qkv.weight"][16:])


def test_dash_shrinks_layers_and_leaves_norms_positions_and_the_token():
    model = small()
    before = copy.deepcopy(model.state_dict())
    batch = torch.randn(6, 3, 8, 8), torch.arange(6) % 3

    ws.dash_(model, [batch], cross_entropy)

    found = changed(model, before)
    assert {"blocks.1.attention.qkv.weight", "blocks.1.attention.out.weight", "patches.weight"} <= found
    assert {"blocks.0.mlp.0.weight", "head.weight"} <= found
    assert not [name for name in found if "norm" in name or name in ("token", "positions")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("vit[patch=3]", r"patches of 3 pixels do not cover images of 8x8; resize them \(--image-size 9x9\)"),
        ("vit[width=8]", "width is 8, which 3 heads cannot share"),
        ("vit[depth=0]", "depth is 0; it must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        model_factory(settings)(10, 1, 8)
