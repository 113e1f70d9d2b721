"""Each measure on a network where the answer is known; the network is left as it was."""

import math

import pytest
import torch
from pytorch_optimizer import SAM
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy, mse_loss

import warmstart as ws
from networks import cnn
from warmstart.diagnostics.measure import Measure, measures
from warmstart.diagnostics.measures.dormant_units import DormantUnits
from warmstart.diagnostics.measures.feature_rank import FeatureRank
from warmstart.diagnostics.subject import Subject, singular_values
from warmstart.losses import as_forward_loss
from warmstart.models.resnet import resnet18

N = 36


def batches_of(inputs, targets, size=9):
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return nn.Sequential(layer)


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return torch.randn(N, 4), torch.randn(N, 3)


def measured(name, model, inputs, targets, loss=mse_loss, **more):
    found = ws.diagnose(model, batches_of(inputs, targets), loss, only=[name], **more)
    assert not found.left, found
    return found


def test_units_that_are_silent_are_dormant():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, -1.0
        model[2].weight[[1, 4]], model[2].bias[[1, 4]] = 0, 0.0
    inputs, targets = torch.randn(40, 4), torch.randn(40, 3)
    found = measured("dormant-units", model, inputs, targets)
    layer = model[1](model[0](inputs)).abs().mean(0)
    quiet = int((layer <= 0.025 * layer.mean()).sum())
    assert quiet >= 1
    second = model[3](model[2](model[1](model[0](inputs)))).abs().mean(0)
    both = int((second <= 0.025 * second.mean()).sum())
    assert both >= 2
    assert found["dormant-units"] == pytest.approx((quiet + both) / 11)
    assert list(found.by_layer("dormant-units").values()) == pytest.approx([quiet / 5, both / 6])


def test_units_of_a_sum_are_counted_once():
    """ResNet-18's projections end in the ReLUs of its blocks: units are the channels of ReLUs."""
    model = resnet18(10, 3, 8, width=4)
    widths = []
    for layer in model.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda *call: widths.append(call[2].shape[1]))
    with torch.no_grad():
        model.eval()(torch.randn(2, 3, 8, 8))
    channels = sum(widths)
    subject = Subject(model, batches_of(torch.randn(4, 3, 8, 8), torch.arange(4)), as_forward_loss(cross_entropy, None))
    assert sum(map(len, subject.loudness.values())) == channels == 244


@pytest.mark.parametrize(
    ("weight", "effective", "stable", "isometry"),
    [
        (torch.eye(4) * 3, 1.0, 1.0, 0.0),
        (torch.outer(torch.ones(3), torch.arange(1.0, 5)), 1 / 3, 1 / 3, math.sqrt(2)),
        (torch.diag(torch.tensor([2.0, 1.0, 1.0])), math.exp(0.5 * math.log(2) + 0.5 * math.log(4)) / 3, 0.5, None),
        (torch.zeros(3, 3), 0.0, 0.0, None),
    ],
)
def test_ranks_and_isometry_are_those_of_singular_values(weight, effective, stable, isometry):
    inputs, targets = torch.randn(N, weight.shape[1]), torch.randn(N, weight.shape[0])
    model = linear(weight)
    assert measured("effective-rank", model, inputs, targets)["effective-rank"] == pytest.approx(effective, abs=1e-6)
    assert measured("stable-rank", model, inputs, targets)["stable-rank"] == pytest.approx(stable, abs=1e-6)
    if isometry is not None:
        assert measured("isometry", model, inputs, targets)["isometry"] == pytest.approx(isometry, abs=1e-5)


def test_a_kernel_is_a_matrix_of_outputs_by_inputs():
    model = nn.Sequential(nn.Conv2d(2, 8, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    nn.init.orthogonal_(model[0].weight)
    found = measured("isometry", model, torch.randn(N, 2, 2, 2), torch.randn(N, 3))
    assert found.by_layer("isometry")["0.weight"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_kernel_too_and_each_group_by_itself(groups):
    model = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    inputs = torch.randn(N, 4, 2, 2)
    found = measured("stable-rank", model, inputs, model(inputs).detach())
    # Each block (in, out, 3, 3) takes (in x 3 x 3) numbers to an output.
    blocks = model.weight.detach().double().unflatten(0, (groups, -1)).transpose(1, 2).flatten(2)
    sigma = torch.cat([torch.linalg.svdvals(block) for block in blocks])
    assert len(sigma) == 6
    assert found["stable-rank"] == pytest.approx(float(sigma.square().sum() / sigma.max() ** 2 / 6), rel=1e-5)


def test_the_rank_of_features_is_that_of_what_the_output_layer_is_given():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    model[0].weight.data = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    model[0].bias.data.zero_()
    inputs = torch.eye(6).repeat(2, 1)
    assert measured("feature-rank", model, inputs, torch.randn(12, 3))["feature-rank"] == 3
    found = measured("feature-effective-rank", model, inputs, torch.randn(12, 3))
    assert found["feature-effective-rank"] == pytest.approx(3, abs=1e-4)  # three of the same size, and zeros


def test_the_rank_of_features_needs_as_many_examples_as_features():
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 3))
    new, old = batches_of(torch.randn(4, 3), torch.randn(4, 3)), batches_of(torch.randn(2, 3), torch.randn(2, 3))
    names = ["feature-rank", "feature-effective-rank"]
    few = ws.diagnose(model, new, mse_loss, only=names)
    assert [entry.reason for entry in few.left] == ["4 examples cannot show the rank of 6 features: give as many"] * 2
    assert not ws.diagnose(model, new, mse_loss, previous=old, only=names).left


@pytest.mark.parametrize("size", [8, 16, 40])
def test_readiness_is_that_of_examples_however_they_are_cut(size, drawn):
    inputs, targets = torch.cat([drawn[0], drawn[0]])[:40], torch.cat([drawn[1], drawn[1]])[:40]
    model = linear(torch.ones(3, 4))
    found = [
        ws.diagnose(model, batches_of(inputs, targets, cut), mse_loss, only=["readiness"])["readiness"]
        for cut in (8, size)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_readiness_needs_four_gradients():
    model = linear(torch.ones(3, 4))
    found = ws.diagnose(model, batches_of(torch.randn(31, 4), torch.randn(31, 3), 31), mse_loss, only=["readiness"])
    assert found.left[0].reason.startswith("these batches hold 3 times 8 examples")


def test_norm_distance_and_effective_rate_are_as_they_are_written():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight.add_(0.5)
        model[2].bias.add_(100.0)  # no layer's weight
    groups = [{"params": model[i].parameters(), "lr": lr} for i, lr in ((0, 0.1), (2, 0.2))]
    batches = batches_of(torch.randn(N, 4), torch.randn(N, 3))
    names = ["weight-norm", "weight-magnitude", "distance", "effective-rate"]
    found = ws.diagnose(model, batches, mse_loss, initial=first, optimizer=torch.optim.SGD(groups), only=names)
    squares = [float(model[i].weight.detach().double().square().sum()) for i in (0, 2)]
    assert found["weight-norm"] == pytest.approx(math.sqrt(sum(squares)))
    every = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    assert found["weight-magnitude"] == pytest.approx(float(every.abs().mean()))
    begun = sum(float(first[f"{i}.weight"].double().square().sum()) for i in (0, 2))
    assert found["distance"] == pytest.approx(math.sqrt(20 * 0.25 / begun), rel=1e-5)
    assert found.by_layer("distance")["2.weight"] == 0
    assert found["effective-rate"] == pytest.approx(0.1 / squares[0])
    assert list(found.by_layer("effective-rate")) == ["0.weight"]  # no norm layer is behind the other one
    adaptive = ws.diagnose(model, batches, mse_loss, optimizer=torch.optim.AdamW(groups), only=["effective-rate"])
    assert adaptive["effective-rate"] == pytest.approx(0.1 / math.sqrt(squares[0]))
    wrapped = SAM([{**group} for group in groups], torch.optim.SGD)
    within = ws.diagnose(model, batches, mse_loss, optimizer=wrapped, only=["effective-rate"])
    assert within["effective-rate"] == pytest.approx(0.1 / squares[0])


def test_examples_that_reach_other_parameters_are_taken_together():
    """As with experts: the first input says which of two layers computes."""

    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.each = torch.nn.ModuleList([linear(torch.ones(1, 2)), linear(torch.ones(1, 2))])

        def forward(self, x):
            return self.each[int(x[0, 0])](x)

    old, new = (torch.tensor([[0.0, 2.0]]), torch.zeros(1, 1)), (torch.tensor([[1.0, 3.0]]), torch.zeros(1, 1))
    found = ws.diagnose(Experts(), [new], mse_loss, previous=[old], only=["gradient-norm"])
    # 2 (w x) x of each, halved in the mean over both.
    first, second = torch.tensor([0.0, 8.0]), torch.tensor([8.0, 24.0])
    assert found["gradient-norm[all]"] == pytest.approx(float(torch.cat([first, second]).norm() / 2), rel=1e-5)


def test_biases_and_norm_layers_are_not_in_the_gradients_norm():
    model, images, labels = cnn(), torch.randn(N, 3, 8, 8), torch.arange(N) % 3
    found = measured("gradient-norm", model, images, labels, cross_entropy, statistics="kept")
    cross_entropy(model.eval()(images), labels).backward()
    expected = math.hypot(*(float(model[i].weight.grad.norm()) for i in (0, 3, 8)))
    assert found["gradient-norm[new]"] == pytest.approx(expected, rel=1e-4)


def test_gradients_directions_and_curvature_are_those_of_least_squares(drawn):
    inputs, targets = drawn
    weight = torch.randn(3, 4)
    model = linear(weight)

    def gradient(x, y):  # of the mean over all 3 N squares
        return 2 / y.numel() * (weight @ x.T - y.T) @ x

    def loss(output, target):
        return mse_loss(output, target)

    before = (inputs.flip(0) * 2)[:7], targets[:7]
    found = ws.diagnose(model, batches_of(inputs, targets), loss, previous=batches_of(*before))
    new, old = gradient(inputs, targets), gradient(*before)
    assert found["gradient-norm[new]"] == pytest.approx(float(new.norm()), rel=1e-5)
    assert found["gradient-norm[previous]"] == pytest.approx(float(old.norm()), rel=1e-5)
    assert found["gradient-norm[all]"] == pytest.approx(float((N * new + 7 * old).norm() / (N + 7)), rel=1e-5)
    assert found["direction"] == pytest.approx(float(-(new * weight).sum() / new.norm() / weight.norm()), rel=1e-4)
    largest = float(torch.linalg.eigvalsh(2 / (3 * N) * inputs.T.double() @ inputs.double())[-1])
    assert found["sharpness"] == pytest.approx(largest, rel=0.01)
    spread = sum(float(gradient(x[:8], y[:8]).square().sum()) for x, y in batches_of(inputs, targets)) / 4
    expected = float(new.square().sum()) ** 2 / (found["sharpness"] * spread)
    assert found["readiness"] == pytest.approx(expected, rel=1e-4)


def test_shrinking_silences_no_unit_behind_batch_norm():
    """The statistics follow the weights, so that activations are what they were; only kept ones do not."""
    torch.manual_seed(5)
    images, labels = torch.randn(64, 3, 8, 8), torch.arange(64) % 3
    model, old = cnn(), (images[:48], labels[:48])
    model.train()
    for _ in range(40):
        model(images)
    new = batches_of(images[48:], labels[48:], 16)
    names = ["dormant-units", "feature-rank", "gradient-norm"]

    def taken(statistics):
        found = ws.diagnose(model, new, cross_entropy, previous=[old], only=names, statistics=statistics)
        assert not found.left, found
        return found.to_dict()

    before, kept = taken("recalibrated"), taken("kept")
    ws.shrink_perturb_(model, shrink=0.3, noise_std=0.0)
    after, lagging = taken("recalibrated"), taken("kept")
    assert after["dormant-units"] == before["dormant-units"] == kept["dormant-units"]
    assert after["feature-rank"] == before["feature-rank"]
    assert lagging["dormant-units"] > after["dormant-units"]
    assert lagging["gradient-norm[new]"] < after["gradient-norm[new]"]
    with pytest.raises(ws.InputError, match="statistics 'keep' is unknown"):
        taken("keep")


def test_batch_norm_has_no_statistics_of_single_examples():
    single = batches_of(torch.randn(3, 3, 8, 8), torch.arange(3), 1)
    found = ws.diagnose(cnn(), single, cross_entropy, only=["gradient-norm", "weight-norm"])
    assert found["weight-norm"] > 0
    assert 'statistics="kept"' in found.left[0].reason
    kept = ws.diagnose(cnn(), single, cross_entropy, only=["gradient-norm"], statistics="kept")
    assert kept["gradient-norm[new]"] > 0


@pytest.mark.parametrize("trained", [0, 300])
@pytest.mark.parametrize("seed", range(6))
def test_sharpness_is_the_largest_eigenvalue_of_the_exact_hessian(seed, trained):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 10))
    inputs, targets = torch.randn(256, 8), torch.randint(10, (256,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(trained):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    found = ws.diagnose(model, batches_of(inputs, targets, 100), cross_entropy, only=["sharpness"])["sharpness"]
    names, weights = zip(*model.named_parameters(), strict=True)
    sizes = [weight.numel() for weight in weights]

    def loss(flat):
        parts = [part.view_as(w) for part, w in zip(flat.split(sizes), weights, strict=True)]
        return cross_entropy(functional_call(model, dict(zip(names, parts, strict=True)), (inputs.double(),)), targets)

    flat = torch.cat([weight.detach().double().flatten() for weight in weights])
    exact = torch.linalg.eigvalsh(hessian(loss)(flat))
    assert abs(found) == pytest.approx(float(exact.abs().max()), rel=0.01)


def test_sharpness_reads_some_512_examples_evenly_spread():
    seen = []
    model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1))
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten()))
    inputs = torch.arange(4000.0)[:, None] / 4000
    ws.diagnose(model, batches_of(inputs, inputs, 128), mse_loss, only=["sharpness"])
    read = torch.cat(seen).unique()
    assert 450 <= len(read) <= 512
    assert float(read.mean()) == pytest.approx(0.5, abs=0.05)


def test_a_network_is_left_bit_for_bit_as_it_was():
    torch.manual_seed(2)
    model = cnn()
    model.train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [layer.training for layer in model.modules()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.randn(N, 3, 8, 8), torch.arange(N) % 3
    random = torch.get_rng_state()
    found = ws.diagnose(
        model,
        batches_of(images, labels),
        cross_entropy,
        previous=batches_of(images[:6], labels[:6]),
        initial=state,
        optimizer=optimizer,
    )
    assert not found.left, found
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [layer.training for layer in model.modules()] == modes
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "0.weight")
    assert torch.equal(torch.get_rng_state(), random)
    assert not optimizer.state
    again = ws.diagnose(model, batches_of(images, labels), cross_entropy, previous=batches_of(images[:6], labels[:6]),
                        initial=state, optimizer=optimizer)  # fmt: skip
    assert again.measurements == found.measurements
    assert set(found.to_dict()) == {one.name for one in found.measurements}
    lines = str(found).splitlines()
    assert len(lines) == len(found.to_dict())
    assert all(len(line) < 80 for line in lines)


def test_what_cannot_be_taken_is_named_with_its_reason(drawn):
    inputs, targets = drawn
    found = ws.diagnose(linear(torch.randn(3, 4)), batches_of(inputs, targets), mse_loss)
    reasons = {entry.name: entry.reason for entry in found.left}
    assert reasons.keys() == {"distance", "effective-rate", "dormant-units"}
    assert "give initial=" in reasons["distance"]
    assert "give optimizer=" in reasons["effective-rate"]
    assert "no units" in reasons["dormant-units"]
    assert "distance" in str(found)
    with pytest.raises(ws.InputError, match="measure 'sharpnes' is unknown; did you mean 'sharpness'"):
        ws.diagnose(linear(torch.randn(3, 4)), batches_of(inputs, targets), mse_loss, only=["sharpnes"])
    with pytest.raises(ws.InputError, match="there is no batch to measure on"):
        ws.diagnose(linear(torch.randn(3, 4)), [], mse_loss)
    cut_off = ws.diagnose(linear(torch.randn(3, 4)), batches_of(inputs, targets), lambda o, t: (o - t).detach().sum())
    assert "the loss has no gradient graph" in next(e.reason for e in cut_off.left if e.name == "gradient-norm")


@pytest.mark.parametrize("where", ["0.weight", "1.running_var"])
def test_a_network_with_nan_keeps_the_measures_that_it_has(where):
    model = cnn()
    model.state_dict()[where].fill_(math.nan)
    images, labels = torch.randn(N, 3, 8, 8), torch.arange(N) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    more = {"initial": cnn().state_dict(), "optimizer": optimizer, "statistics": "kept"}
    found = ws.diagnose(model, batches_of(images, labels), cross_entropy, **more)
    assert all(math.isfinite(one.value) for one in found.measurements)
    reasons = {entry.name: entry.reason for entry in found.left}
    assert {"dormant-units", "feature-rank", "gradient-norm", "sharpness"} <= reasons.keys()
    if where == "0.weight":
        assert reasons["weight-norm"] == "0.weight holds NaN or infinite weights"
    else:
        assert "weight-norm" in found.to_dict()


@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (3, 6, 5)])
def test_singular_values_are_those_of_the_decomposition(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    matrices[..., 0, :] = 2 * matrices[..., 1, :]  # one of them is 0
    expected = torch.linalg.svdvals(matrices)
    assert torch.allclose(singular_values(matrices).flip(-1), expected, rtol=0, atol=2e-8 * float(expected.max()))


def test_a_measure_of_ones_own_is_taken_as_it_is(drawn):
    class Largest(Measure):
        name = "largest"

        def of(self, subject):
            return self.whole_and_layers(max(float(w.abs().max()) for w in subject.weights.values()), {})

    model = linear(torch.full((3, 4), -2.0))
    found = ws.diagnose(model, batches_of(*drawn), mse_loss, only=[Largest(), "weight-norm"])
    assert found.to_dict() == {"largest": 2.0, "weight-norm": pytest.approx(2 * math.sqrt(12))}
    with pytest.raises(ws.InputError, match="is no measure: call it"):
        ws.diagnose(model, batches_of(*drawn), mse_loss, only=[Largest])


def test_thresholds_are_settings():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, -1.0  # dead
        model[0].weight[3], model[0].bias[3] = 0, 1e-3  # all but silent
    inputs, targets = torch.randn(40, 4), torch.randn(40, 3)
    for tau, share in ((0.0, 0.2), (0.025, 0.4)):
        assert measured(DormantUnits(tau), model, inputs, targets)["dormant-units"] == pytest.approx(share)
    ranks = [measured(FeatureRank(delta), model, inputs, targets)["feature-rank"] for delta in (0.01, 0.9)]
    assert ranks[1] == 1 < ranks[0]
    with pytest.raises(ws.InputError, match="tau is -1; it must be a finite number, at least 0"):
        DormantUnits(-1)
    with pytest.raises(ws.InputError, match="delta is 1; it must be a finite number, above 0 and below 1"):
        FeatureRank(1)


def test_what_is_not_asked_for_is_not_computed(drawn):
    passes = []
    model = linear(torch.randn(3, 4))
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    ws.diagnose(model, batches_of(*drawn), mse_loss, only=["weight-norm", "isometry"])
    assert not passes


@pytest.mark.parametrize("name", measures())
def test_each_measure_says_what_it_is_and_where_it_comes_from(name):
    measure = measures()[name]
    assert 0 < len(measure.summary) < 120
    assert measure.source
    assert measure.cost


def test_an_embedding_is_looked_up_and_multiplies_nothing():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 2))
    assert list(Subject(model, [], cross_entropy).weights) == ["2.weight"]


def test_sharpness_goes_through_fused_attention():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.out = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.into(x).unflatten(1, (1, 2, 4))
            return self.out(nn.functional.scaled_dot_product_attention(x, x, x).flatten(1))

    torch.manual_seed(4)
    assert measured("sharpness", Attending(), torch.randn(N, 4), torch.randn(N, 3))["sharpness"] > 0
