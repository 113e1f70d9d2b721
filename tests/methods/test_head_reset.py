import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained


class Backwards(nn.Module):
    """The head is registered first, its body last."""

    def __init__(self, head=None):
        super().__init__()
        self.head = head or nn.Linear(8, 4)
        self.norm = nn.BatchNorm1d(8)
        self.body = nn.Linear(6, 8)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.body(x))))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"network": Backwards()})
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner["network"](x)


class Residual(nn.Module):
    """The body's output reaches the logits around the last block, but only through the head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 4, bias=False)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))

    def forward(self, x):
        return self.head(x + self.block(x))


class Scaled(nn.Module):
    """A learned temperature stands behind the head."""

    def __init__(self):
        super().__init__()
        self.body = Backwards()
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.body(x) * self.temperature


class Bare(nn.Module):
    """The head is a bare parameter."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.out = nn.Parameter(torch.randn(8, 4))

    def forward(self, x):
        return self.body(x) @ self.out


def stage_for(loss=None, batches=None, seed=0):
    batches = batches or batches_for((6,), 3)
    loss = loss or (lambda model, batch: cross_entropy(model(batch[0]), batch[1]))
    return ws.Stage(2, 24, 8, lambda size: batches, loss, None, {}, torch.Generator().manual_seed(seed))


def changed_by(method, model, stage):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    method.on_new_data(model, stage)
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def body(*behind):
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), *behind)


@pytest.mark.parametrize(
    ("make", "head"),
    [
        (Backwards, "head"),
        (Wrapped, "inner.network.head"),
        (Residual, "head"),
        (Scaled, "body.head"),
        (lambda: nn.DataParallel(Backwards()), "module.head"),
        (lambda: body(nn.Dropout(0.5)), "2"),
        (lambda: body(nn.Softmax(dim=1)), "2"),
        (lambda: body(nn.BatchNorm1d(4)), "2"),
        (lambda: body(nn.PReLU(4)), "2"),
        (lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4, bias=False)), "1"),
        (lambda: nn.Sequential(nn.Linear(6, 5), nn.Unflatten(1, (5, 1)), nn.Conv1d(5, 4, 1), nn.Flatten()), "2"),
    ],
    ids=[
        "first",
        "wrapped",
        "residual",
        "temperature",
        "parallel",
        "dropout",
        "softmax",
        "norm",
        "prelu",
        "bottleneck",
        "conv",
    ],
)
def test_the_head_is_found_by_the_graph(make, head):
    torch.manual_seed(0)
    model = make()
    parameters = {name for name, _ in model.named_parameters() if name.rpartition(".")[0] == head}
    assert changed_by(ws.HeadReset(), model, stage_for()) == parameters


def test_the_head_is_found_where_autocast_casts_its_weights():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4, bias=False))

    def loss(network, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return cross_entropy(network(batch[0]), batch[1])

    assert changed_by(ws.HeadReset(), model, stage_for(loss)) == {"1.weight"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Bare, "the model itself, a Bare: name the head yourself"),
        (
            lambda: Backwards(nn.utils.parametrizations.weight_norm(nn.Linear(8, 4, bias=False))),
            "head.parametrizations.weight, a ParametrizationList: name the head",
        ),
        (lambda: body().requires_grad_(False), "no trainable Linear or Conv"),
    ],
    ids=["bare parameter", "weight norm", "frozen"],
)
def test_a_head_that_cannot_be_told_is_refused_rather_than_guessed(make, message):
    torch.manual_seed(0)
    model = make()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.requires_grad_(False)
    stage = stage_for(lambda network, batch: cross_entropy(network(batch[0].requires_grad_()), batch[1]))
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.HeadReset().on_new_data(model, stage)
    assert_same(before, snapshot(model))


def test_finding_the_head_leaves_flags_gradients_and_statistics():
    model, batches = mlp(), batches_for((6,), 3)
    trained(model, batches)
    cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    before = snapshot(model)
    ws.HeadReset().on_new_data(model, stage_for(batches=batches))
    after = snapshot(model)
    head = {"3.weight", "3.bias"}
    assert_same(({n: t for n, t in before[0].items() if n not in head}, *before[1:]), after)


def test_it_is_pytorchs_default_initialisation():
    model = cnn()
    ws.head_reset_(model, "8", generator=torch.Generator().manual_seed(5))
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(5))))
        expected = nn.Linear(8, 4)
    assert torch.equal(model[8].weight, expected.weight)
    assert torch.equal(model[8].bias, expected.bias)


def test_without_a_generator_pytorchs_own_decides():
    models = [cnn(), cnn()]
    for model in models:
        torch.manual_seed(3)
        ws.head_reset_(model, "8")
    assert torch.equal(models[0][8].weight, models[1][8].weight)
    ws.head_reset_(models[1], "8")
    assert not torch.equal(models[0][8].weight, models[1][8].weight)


def test_each_reset_is_another_draw():
    model, generator = cnn(), torch.Generator().manual_seed(0)
    ws.head_reset_(model, "8", generator=generator)
    first = model[8].weight.clone()
    ws.head_reset_(model, "8", generator=generator)
    assert not torch.equal(first, model[8].weight)


def test_a_named_classifier_is_redrawn_as_a_whole():
    """As the DASH authors do for VGG."""

    class Vgg(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Linear(6, 8)
            self.classifier = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4))

        def forward(self, x):
            return self.classifier(self.features(x))

    model = Vgg()
    method = ws.HeadReset(head="classifier")
    changed = changed_by(method, model, stage_for())
    assert changed == {f"classifier.{i}.{key}" for i in (0, 3) for key in ("weight", "bias")}
    report = method.on_new_data(model, stage_for())
    drawn = {"classifier.0.weight": 64, "classifier.0.bias": 8, "classifier.3.weight": 32, "classifier.3.bias": 4}
    assert {layer.name: layer.numbers["drawn anew"] for layer in report.layers} == drawn


def test_the_report_says_what_was_drawn_anew_and_nothing_of_scales():
    lines = str(ws.head_reset_(Backwards(), "head")).splitlines()
    assert lines[1:4] == [
        "parameter    layer   drawn anew",
        "head.weight  Linear          32",
        "head.bias    Linear           4",
    ]


def test_the_models_of_the_lab_have_the_head_that_one_expects():
    from warmstart.models.registry import model_factory

    images = [(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))]
    for name in ("small-cnn", "mlp", "resnet18"):
        model = model_factory(name)(10, 3, 32)
        last = [n for n, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1]
        changed = changed_by(ws.HeadReset(), model, stage_for(batches=images))
        assert changed == {f"{last}.weight", f"{last}.bias"}, name
        assert model.get_submodule(last).out_features == 10


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("haed", "no module 'haed'; did you mean 'head'"),
        ("activation", "is a ReLU without layers"),
        ("", "the whole network"),
        (3, "head is a int: give a layer's name"),
    ],
)
def test_a_head_that_is_none_is_refused(head, message):
    model = Backwards()
    model.activation = nn.ReLU()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.head_reset_(model, head)
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("sam", [False, True])
def test_the_optimizer_forgets_the_old_head_alone(sam):
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 4)).square().mean().backward()
    optimizer.step()
    outer = optimizer
    if sam:
        outer = torch.optim.SGD(model.parameters())
        outer.base_optimizer = optimizer
    report = ws.head_reset_(model, "2", optimizer=outer)
    assert optimizer.state.keys() == set(model[:2].parameters())
    assert "optimizer state of the head reset" in report.notes
    assert "optimizer state kept" in ws.head_reset_(model, "2").notes


def test_the_optimizer_of_another_head_is_refused():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    before = model[1].weight.detach().clone()
    with pytest.raises(ws.InputError, match="holds no parameter of '1'"):
        ws.head_reset_(model, "1", optimizer=torch.optim.SGD(model[0].parameters()))
    assert torch.equal(model[1].weight, before)
