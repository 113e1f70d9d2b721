"""Units are what the network computes with: everything here is checked against the network itself or by hand."""

import copy

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from networks import assert_same, snapshot
from warmstart.errors import InputError
from warmstart.layers.parts import Part
from warmstart.layers.units import units, watch
from warmstart.models.registry import networks


class Block(nn.Module):
    """As in timm: packed qkv, layer scale."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.act, self.fc2 = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.rand(width))
        self.heads = heads

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        x = x + self.proj((attention @ v).transpose(1, 2).reshape(b, t, c))
        return x + self.gamma * self.fc2(self.act(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.blocks = nn.Sequential(Block(8, 2), Block(8, 2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


class Dense(nn.Module):
    """Concatenation; the norm behind it has a part for each layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(9, 6, 1)
        self.act, self.norm, self.head = nn.CELU(), nn.BatchNorm2d(9), nn.Linear(6 * 4, 3)

    def forward(self, x):
        a = self.act(self.a(x))
        both = torch.cat([a, self.act(self.b(a))], 1)
        return self.head(F.avg_pool2d(self.c(F.elu(self.norm(both))), 4).flatten(1))


class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w3, self.w2 = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.out = nn.Conv2d(6, 3, 3)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.out(x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()).mean((2, 3))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5 * 4, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc(F.relu(self.conv2(x), inplace=True)[:, :, :2, :2].reshape(len(x), -1))


class Split(nn.Module):
    """Halves of a layer go separate ways, a quarter of it is written in place, and weights are plain parameters."""

    def __init__(self):
        super().__init__()
        self.fc, self.left = nn.Linear(8, 8), nn.Linear(4, 5)
        self.right, self.shift = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5))
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        left, right = self.fc(x).tanh().chunk(2, -1)
        both = x.new_zeros(len(x), 10)
        both[:, :5] = self.left(left)
        both[:, 5:] += torch.einsum("bi,io->bo", right, self.right) + self.shift
        return self.head(both.sigmoid())


def vgg():
    layers, inputs = [], 3
    for width in (4, "M", 6, 6, "M", 8):
        more = [nn.MaxPool2d(2)] if width == "M" else [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)]
        layers += [*more, nn.ReLU(inplace=True)][: 1 if width == "M" else 3]
        inputs = inputs if width == "M" else width
    head = [nn.Linear(8 * 9, 10), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(10, 3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), *head)


def grouped():
    convolutions = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 24, 3, groups=12, bias=False)
    last = nn.ConvTranspose2d(24, 6, 2, groups=3), nn.ConvTranspose2d(6, 4, 2)
    layers = [layer for conv in (*convolutions, *last) for layer in (conv, nn.PReLU(conv.out_channels))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def gpt2():
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 11, "n_positions": 8}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=1))


def hf_vit():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3)
    return transformers.ViTForImageClassification(config)


def llama():
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=11, bos_token_id=1, eos_token_id=1)
    return transformers.LlamaForCausalLM(config)


def encoder():
    layers = [nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=first) for first in (False, True)]
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 3))


IMAGES = (2, 3, 8, 8)
NETWORKS = {
    "small-cnn": (lambda: networks()["small-cnn"].factory(10, 3, 16), (2, 3, 16, 16)),
    "resnet18": (lambda: networks()["resnet18"].factory(4, 3, 16), (2, 3, 16, 16)),
    "vgg": (vgg, IMAGES),
    "mlp": (lambda: networks()["mlp"].factory(4, 3, 8, width=12), IMAGES),
    "vit": (ViT, IMAGES),
    "the library's vit": (lambda: networks()["vit"].factory(4, 3, 8, width=8, depth=2, heads=2), IMAGES),
    "hugging face vit": (hf_vit, IMAGES),
    "gpt2": (gpt2, 11),
    "llama": (llama, 11),
    "encoder": (encoder, (2, 5, 6)),
    "dense": (Dense, IMAGES),
    "grouped": (grouped, (4, 3, 20, 20)),
    "swiglu": (SwiGLU, (2, 8)),
    "glu": (lambda: nn.Sequential(nn.Linear(8, 12), nn.GLU(), nn.Linear(6, 3)), (2, 8)),
    "squeeze-excite": (SqueezeExcite, IMAGES),
    "functional": (Functional, (2, 3, 12, 12)),
    "split": (Split, (2, 8)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.GroupNorm(6, 6), nn.ELU(), nn.Conv1d(6, 2, 3)), (2, 3, 8)),
    "instance norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ELU(), nn.Conv2d(4, 3, 3)),
        IMAGES,
    ),
}


def made(name, dtype=torch.float32):
    """The network with lively norm statistics, what carries a forward pass out, and what it outputs."""
    torch.manual_seed(0)
    factory, shape = NETWORKS[name]
    model = factory()
    for parameter in model.parameters():
        if parameter.dim() < 2:
            nn.init.uniform_(parameter, 0.2, 1)
    model.to(dtype)
    inputs = torch.randint(0, shape, (2, 5)) if isinstance(shape, int) else torch.randn(shape, dtype=dtype)
    with torch.no_grad():
        for _ in range(3):
            model(inputs if isinstance(shape, int) else torch.randn_like(inputs))
    model.eval()

    def output(model=model):
        result = model(inputs)
        return result if isinstance(result, torch.Tensor) else result.logits

    return model, output


def tensors(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def own_parts(layer):
    return [*layer.incoming, *layer.norms, *([layer.bias] if layer.bias else [])]


def perturb_(model, layer, chosen):
    """Noise on everything that makes a unit, done on the parts; what it may change, as masks."""
    masks = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in tensors(model).items()}
    for part in own_parts(layer):
        tensor = tensors(model)[part.name]
        values = part.of(tensor, chosen)
        noise = torch.rand_like(values) + 0.5
        part.copy_(tensor, chosen, values + noise)
        part.fill_(masks[part.name], chosen, 1)
    return masks


def names(layers):
    return [layer.layer for layer in layers]


FORMATS = [(name, torch.contiguous_format) for name in NETWORKS]
FORMATS += [(name, torch.channels_last) for name in ("small-cnn", "resnet18", "dense", "grouped", "squeeze-excite")]


@pytest.mark.parametrize(("name", "memory_format"), FORMATS)
def test_a_unit_without_outgoing_weights_is_free_to_change(name, memory_format):
    model, output = made(name)
    model.to(memory_format=memory_format)
    layers, _ = units(model, output)
    checked = [layer for layer in layers if layer.redrawable and not layer.coupled_by]
    assert checked
    with torch.no_grad():
        before = output()
        for layer in checked:
            chosen = torch.randperm(layer.count)[: max(1, layer.count // 4)]

            other = copy.deepcopy(model)
            masks = perturb_(other, layer, chosen)
            assert not torch.allclose(output(other), before), layer.layer
            for key, tensor in tensors(other).items():
                assert torch.equal(tensor != tensors(model)[key], masks[key]), (layer.layer, key)
                assert tensor.stride() == tensors(model)[key].stride()

            for part in layer.outgoing:
                part.fill_(tensors(other)[part.name], chosen, 0)
            perturbed = output(other)
            silent = copy.deepcopy(model)
            for part in layer.outgoing:
                part.fill_(tensors(silent)[part.name], chosen, 0)
            assert torch.equal(output(silent), perturbed), layer.layer


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "dense"])  # there a norm shifts the silence
def test_a_silenced_unit_takes_the_gradient_of_exactly_its_parts(name):
    """Where its activation is held at zero, the gradient vanishes from its weights, in and out, and from no others."""
    model, output = made(name, torch.float64)
    for parent in list(model.modules()):  # a unit that falls silent shifts others, which must not die of it
        for key, child in parent.named_children():
            setattr(parent, key, nn.Softplus() if isinstance(child, (nn.ReLU, nn.PReLU)) else child)
    layers, _ = units(model, output)
    sure = [x for x in layers if x.redrawable and x.private and not x.coupled_by and x.activation is not None]
    for layer in sure:
        chosen = torch.tensor([layer.count // 2])
        place = layer.activation

        def silence(tensor, place=place, chosen=chosen):
            keep = torch.ones(tensor.size(place.axis), dtype=tensor.dtype)
            keep[place.at[chosen]] = 0
            return tensor * keep.reshape([-1 if d == place.axis else 1 for d in range(tensor.dim())])

        def gradients(hooked, place=place, silence=silence):
            module, calls = model.get_submodule(place.module), []

            def hook(_, args, result=None):
                calls.append(None)
                if len(calls) - 1 != place.call or not hooked:
                    return None
                return (silence(args[0]),) if place.of_input else silence(result)

            register = module.register_forward_pre_hook if place.of_input else module.register_forward_hook
            handle = register(hook)
            result = output()
            weights = torch.linspace(1, 2, result.numel(), dtype=result.dtype).reshape(result.shape)
            loss = (result * weights).sum() + (result**2).sum()
            grads = torch.autograd.grad(loss, model.parameters(), allow_unused=True)
            handle.remove()
            return {n: g for (n, _), g in zip(model.named_parameters(), grads, strict=True) if g is not None}

        alive, silenced = gradients(hooked=False), gradients(hooked=True)
        for key, gradient in alive.items():
            expected = torch.zeros_like(gradient, dtype=torch.bool)
            for part in (*own_parts(layer), *layer.outgoing):
                if part.name == key:
                    part.fill_(expected, chosen, 1)
            is_there = gradient.abs() > 1e-12  # that of a bias before a norm is rounding
            lost = is_there & (silenced[key].abs() <= 1e-12)
            assert torch.equal(lost, expected & is_there), (layer.layer, key)


def test_every_network_above_has_its_private_layers():
    private = dict.fromkeys(NETWORKS, 0)
    for name in NETWORKS:
        model, output = made(name)
        layers, _ = units(model, output)
        private[name] = sum(layer.redrawable and layer.private and not layer.coupled_by for layer in layers)
    assert private == {
        **{"small-cnn": 3, "resnet18": 8, "vgg": 5, "mlp": 2, "vit": 4, "hugging face vit": 4, "gpt2": 4, "llama": 2},
        **{"encoder": 4, "dense": 3, "grouped": 5, "swiglu": 0, "glu": 0, "squeeze-excite": 1, "functional": 2},
        **{"split": 3, "conv1d": 1, "instance norm": 1, "the library's vit": 4},
    }


def outgoing(layer):
    return [(part.name, *part.at.shape[:2]) for part in layer.outgoing]


def test_small_cnn_by_hand():
    model = networks()["small-cnn"].factory(10, 1, 8)
    layers, left = units(model, lambda: model(torch.randn(2, 1, 8, 8)))
    assert [(x.layer, x.count, x.shared_with, x.is_output) for x in layers] == [
        ("features.0", 16, (), False),
        ("features.3", 32, (), False),
        ("features.6", 64, (), False),
        ("classifier", 10, (), True),
    ]
    assert [outgoing(layer) for layer in layers] == [
        [("features.3.weight", 16, 1)],
        [("features.6.weight", 32, 1)],
        [("classifier.weight", 64, 4)],  # 2x2 positions a channel
        [],
    ]
    assert [part.name.rpartition(".")[2] for part in layers[0].norms] == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
    ]
    assert layers[0].bias is None
    assert layers[3].bias.name == "classifier.bias"
    columns = layers[2].outgoing[0].of(model.classifier.weight, torch.tensor([5]))
    assert torch.equal(columns[0], model.classifier.weight[:, 20:24].T)
    assert left == []


def test_resnet18_by_hand():
    model = networks()["resnet18"].factory(10, 3, 16)
    layers, left = units(model, lambda: F.cross_entropy(model(torch.randn(2, 3, 16, 16)), torch.tensor([0, 1])))
    stream = {
        1: ("conv1", "layer1.0.conv2", "layer1.1.conv2"),
        **{n: (f"layer{n}.0.downsample.0", f"layer{n}.0.conv2", f"layer{n}.1.conv2") for n in (2, 3, 4)},
    }
    found = {layer.layer: layer for layer in layers}
    assert len(found) == 21
    for n, width in ((1, 64), (2, 128), (3, 256), (4, 512)):
        following = [f"layer{n + 1}.0.downsample.0.weight", f"layer{n + 1}.0.conv1.weight"] if n < 4 else ["fc.weight"]
        for name in stream[n]:
            assert found[name].shared_with == tuple(other for other in stream[n] if other != name)
            later = [f"layer{n}.{b}.conv1.weight" for b in (0, 1)][stream[n].index(name) + (n > 1) :]
            later = [f"layer{n}.1.conv1.weight"] if n > 1 and stream[n].index(name) < 2 else later if n == 1 else []
            assert outgoing(found[name]) == [(weight, width, 1) for weight in (*later, *following)]
        for block in (0, 1):
            inner = found[f"layer{n}.{block}.conv1"]
            assert (inner.count, inner.private) == (width, True)
            assert outgoing(inner) == [(f"layer{n}.{block}.conv2.weight", width, 1)]
            assert {part.name.rpartition(".")[0] for part in inner.norms} == {f"layer{n}.{block}.bn1"}
    assert [layer.layer for layer in layers if layer.is_output] == ["fc"]
    assert found["layer2.0.conv2"].activation.module == "layer2.0.relu"
    assert found["layer2.0.conv2"].activation.call == 1
    assert left == []


def test_gpt2_by_hand():
    model, _ = made("gpt2")
    tokens = torch.randint(0, 11, (2, 5))
    layers, left = units(model, lambda: model(input_ids=tokens, labels=tokens).loss)
    stream = ["transformer.wte", "transformer.wpe"]
    stream += [f"transformer.h.{n}.{part}.c_proj" for n in (0, 1) for part in ("attn", "mlp")]
    expected = []
    for n in (0, 1):
        block = f"transformer.h.{n}"
        for name, count in ((f"{block}.attn.c_attn", 8), (f"{block}.attn.c_proj", 8)):
            shared = tuple(other for other in stream if other != name) if name in stream else ()
            expected.append((name, count, shared, False))
        expected.append((f"{block}.mlp.c_fc", 32, (), False))
        expected.append((f"{block}.mlp.c_proj", 8, tuple(x for x in stream if x != f"{block}.mlp.c_proj"), False))
    expected.append(("lm_head", 11, (), True))
    assert [(x.layer, x.count, x.shared_with, x.is_output) for x in layers] == expected
    values = layers[0]
    assert torch.equal(
        values.incoming[0].of(model.transformer.h[0].attn.c_attn.weight),
        model.transformer.h[0].attn.c_attn.weight[:, 16:].T[:, None],
    )
    assert outgoing(values) == [("transformer.h.0.attn.c_proj.weight", 8, 1)]
    assert outgoing(layers[7]) == [("transformer.wte.weight", 8, 1)]  # tied to the head
    assert layers[-1].incoming[0].name == "transformer.wte.weight"
    assert [(entry.name, entry.reason[:17]) for entry in left] == [
        ("transformer.wte", "an embedding look"),
        ("transformer.wpe", "an embedding look"),
        ("transformer.h.0.attn.c_attn", "16 of its 24 outp"),
        ("transformer.h.1.attn.c_attn", "16 of its 24 outp"),
    ]


def test_gates_are_told_from_sums():
    model, output = made("swiglu")
    layers = {layer.layer: layer for layer in units(model, output)[0]}
    assert layers["w1"].shared_with == layers["w1"].gated_with == ("w3",)
    (halves, _), _ = units(*made("glu"))
    assert halves.gated_with == ("0",)  # its outputs meet each other: 12 units, two of which share a column each
    assert halves.outgoing[0].at.flatten().tolist() == [*range(6), *range(6)]
    assert units(*made("resnet18"))[0][0].gated_with == ()


def test_a_sum_with_what_cannot_be_read_is_not_private():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.a(x) + self.b(x).cumsum(1))

    model = Sum()
    (layer, _), (entry,) = units(model, lambda: model(torch.randn(2, 6)))
    assert (layer.layer, layer.shared_with, layer.gated_with) == ("a", ("b",), ())
    assert (entry.name, entry.reason) == ("b", "aten.cumsum mixes its units")


def test_a_recurrent_layer_is_named_with_what_feeds_it():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.body, self.head = nn.Linear(6, 5), nn.LSTM(5, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.body(self.into(x))[0])

    model = Recurrent()
    with pytest.raises(InputError, match=r"into: aten\.\w+ reads its units in an unknown way"):
        units(model, lambda: model(torch.randn(3, 2, 6)))


def test_norms_over_several_units_are_named():
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    first = units(model, lambda: model(torch.randn(2, 4)))[0][0]
    assert first.coupled_by == ("1",)
    assert [part.name for part in first.norms] == ["1.weight", "1.bias"]


def test_a_layer_that_serves_twice_has_one_set_of_units():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.again, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            hidden = self.into(x).tanh()
            for _ in range(3):
                hidden = self.again(hidden).tanh()
            return self.head(hidden)

    model = Twice()
    layers = units(model, lambda: model(torch.randn(2, 4)))[0]
    assert [outgoing(layer) for layer in layers] == [
        [("again.weight", 6, 1)],
        [("again.weight", 6, 1), ("head.weight", 6, 1)],
        [],
    ]


def test_weights_that_autocast_casts_are_found():
    model, output = made("small-cnn")

    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return output()

    for plain, cast in zip(units(model, output)[0], units(model, run)[0], strict=True):
        assert outgoing(plain) == outgoing(cast)
        assert [part.name for part in own_parts(plain)] == [part.name for part in own_parts(cast)]


def test_inference_mode_hides_nothing():
    model, output = made("vit")

    def run():
        with torch.inference_mode():
            return output()

    assert [outgoing(layer) for layer in units(model, run)[0]] == [outgoing(x) for x in units(model, output)[0]]


# Activations


def activations(name, train=True):
    model, output = made(name)
    layers, _ = units(model, output)
    model.train(train)
    with watch(model, layers) as seen:
        output().sum().backward()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(tensor.requires_grad for tensor in seen.values())
    return model, seen


def rows(channels_second):
    return channels_second.movedim(1, -1).flatten(0, -2)


def test_activations_behind_modules_in_place_are_those_of_the_right_call():
    torch.manual_seed(0)
    model = networks()["resnet18"].factory(4, 3, 16)
    x = torch.randn(2, 3, 16, 16)
    layers, _ = units(model, lambda: model(x))
    other = copy.deepcopy(model)
    with watch(model, layers) as seen:
        model(x).sum().backward()
    other.train()
    stem = F.relu(other.bn1(other.conv1(x)))
    pooled, block = other.maxpool(stem), other.layer1[0]
    inner = F.relu(block.bn1(block.conv1(pooled)))
    total = F.relu(block.bn2(block.conv2(inner)) + pooled)
    assert torch.equal(seen["conv1"], rows(stem))
    assert torch.equal(seen["layer1.0.conv1"], rows(inner))
    assert torch.equal(seen["layer1.0.conv2"], rows(total))
    assert seen.keys() == {layer.layer for layer in layers} - {"fc"}


def test_activations_of_functional_networks_are_what_the_next_layer_reads():
    model, seen = activations("functional")
    _, output = made("functional")
    caught = {}
    model.conv2.register_forward_pre_hook(lambda _, args: caught.update(conv=args[0]))
    model.fc.register_forward_pre_hook(lambda _, args: caught.update(fc=args[0]))
    output(model)
    assert torch.equal(seen["conv1"], rows(caught["conv"]))
    assert torch.equal(seen["conv2"], caught["fc"].unflatten(1, (5, 4)).transpose(1, 2).flatten(0, 1))


def test_activations_of_attention_are_what_the_projection_reads():
    model, seen = activations("vit")
    _, output = made("vit")
    caught = {}
    model.blocks[1].proj.register_forward_pre_hook(lambda _, args: caught.update(v=args[0]))
    model.blocks[1].act.register_forward_hook(lambda _, args, result: caught.update(act=result))
    output(model)
    assert torch.equal(seen["blocks.1.qkv"], caught["v"].flatten(0, 1))
    assert torch.equal(seen["blocks.1.fc1"], caught["act"].flatten(0, 1))


def test_activations_of_a_gate_are_products():
    model, seen = activations("swiglu")
    _, output = made("swiglu")
    caught = {}
    model.w2.register_forward_pre_hook(lambda _, args: caught.update(x=args[0]))
    output(model)
    assert torch.equal(seen["w1"], caught["x"])
    assert torch.equal(seen["w3"], caught["x"])


def test_what_no_module_takes_or_returns_is_not_seen():
    _, seen = activations("encoder")
    assert "1.self_attn" not in seen
    assert seen["1.linear1"].shape == (10, 12)


# Parts


def test_moments_of_exactly_these_elements_are_reset():
    model, output = made("vgg")
    optimizer = torch.optim.Adam(model.parameters())
    output().square().sum().backward()
    optimizer.step()
    layer = next(layer for layer in units(model, output)[0] if layer.layer == "11")
    weight, following = model.get_parameter("11.weight"), model.get_parameter("16.weight")
    before = {p: optimizer.state[p]["exp_avg"].clone() for p in (weight, following)}
    chosen = torch.tensor([1, 6])
    for part in (*layer.incoming, *layer.outgoing):
        part.fill_(optimizer.state[model.get_parameter(part.name)]["exp_avg"], chosen, 0)
    by_hand = {p: moment.clone() for p, moment in before.items()}
    for unit in (1, 6):
        by_hand[weight][unit] = 0
        by_hand[following][:, unit * 9 : unit * 9 + 9] = 0
    for p, expected in by_hand.items():
        assert torch.equal(optimizer.state[p]["exp_avg"], expected)
        assert not torch.equal(before[p], expected)


def test_a_unit_of_a_group_touches_the_rows_of_its_group():
    model, output = made("grouped")
    layer = units(model, output)[0][0]
    (part,) = layer.outgoing  # 8 channels into 4 groups of 3 rows and 2 columns
    mask = torch.zeros_like(model[2].weight)
    part.fill_(mask, torch.tensor([5]), 1)
    expected = torch.zeros_like(mask)
    expected[6:9, 1] = 1
    assert torch.equal(mask, expected)


def test_a_whole_part_is_read_without_a_copy():
    model, output = made("vgg")
    layer = next(layer for layer in units(model, output)[0] if layer.layer == "11")
    weight = model.get_parameter("16.weight")
    assert layer.outgoing[0].of(weight).data_ptr() == weight.data_ptr()
    assert torch.equal(layer.outgoing[0].of(weight), layer.outgoing[0].of(weight, torch.arange(8)))


def test_units_without_a_slot_read_zero_and_write_nothing():
    model, output = made("split")
    layer = units(model, output)[0][0]
    left, right = layer.outgoing
    assert (left.name, right.name) == ("left.weight", "right")
    assert torch.equal(right.of(model.right)[:, 0], torch.cat([torch.zeros(4, 5), model.right]))
    part = Part("right", right.dims, right.at)
    part.copy_(model.right, torch.tensor([0, 6]), torch.ones(2, 1, 5))
    assert torch.equal((model.right == 1).all(1), torch.tensor([False, False, True, False]))


# Refusals


class Mixing(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.into, self.norm, self.head, self.mix = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2), mix
        self.drop = nn.Dropout()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.head(self.drop(self.mix(self.norm(self.into(x)))))


@pytest.mark.parametrize(
    ("mix", "op"),
    [
        (lambda x: torch.fft.fft(x).real, "_fft"),
        (lambda x: x.cumsum(1), "cumsum"),
        (lambda x: x.softmax(1), "softmax"),
        (lambda x: x.sort(1).values, "sort"),
        (lambda x: x @ torch.ones(8, 8), "mm"),
        (lambda x: x + x.cumsum(1), "cumsum"),
    ],
)
def test_an_operation_that_mixes_units_is_named_with_the_layer(mix, op):
    model = Mixing(mix)
    before, random = snapshot(model), torch.get_rng_state()
    with pytest.raises(InputError) as error:
        units(model, lambda: model(torch.randn(2, 6)))
    assert "into: " in str(error.value)
    assert op in str(error.value)
    assert "\n" not in str(error.value)
    assert_same(before, snapshot(model))
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_mixed_layer_is_left_alone_and_the_others_are_read():
    model = nn.Sequential(nn.Linear(6, 8), nn.Softmax(1), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))
    layers, left = units(model, lambda: model(torch.randn(2, 6)))
    assert names(layers) == ["2", "4"]
    assert [(entry.name, entry.reason) for entry in left] == [
        ("0", "aten._softmax mixes its units, and 2 reads the result")
    ]


def test_a_network_of_one_layer_has_only_its_output():
    model = nn.Sequential(nn.Linear(6, 2))
    with pytest.raises(InputError, match="0: it feeds the output"):
        units(model, lambda: F.cross_entropy(model(torch.randn(2, 6)), torch.tensor([0, 1])))


def test_computed_and_frozen_weights_are_left_alone():
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
    model = nn.Sequential(*layers)
    nn.utils.parametrizations.weight_norm(model[2])
    model[4].requires_grad_(False)
    with pytest.raises(InputError) as error:
        units(model, lambda: model(torch.randn(2, 6)))
    assert "0: " in str(error.value)
    assert "4.weight is frozen" in str(error.value)


def test_an_error_of_the_network_leaves_it_as_it_was():
    model = Mixing(lambda x: x @ torch.ones(3, 3)).train()
    fast = torch.backends.mha.get_fastpath_enabled()
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        units(model, lambda: model(torch.randn(2, 6)))
    assert_same(before, snapshot(model))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_reading_changes_nothing():
    for name in ("resnet18", "gpt2", "encoder"):
        model, output = made(name)
        model.train()
        next(model.modules()).training = False
        before, random = snapshot(model), torch.get_rng_state()
        units(model, output)
        assert_same(before, snapshot(model))
        assert torch.equal(random, torch.get_rng_state())
