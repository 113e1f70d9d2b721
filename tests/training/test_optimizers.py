import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from warmstart.errors import InputError
from warmstart.models.registry import model_factory
from warmstart.training.optimizers import make_optimizer, step
from warmstart.training.recipe import OPTIMIZERS, Recipe

SETTINGS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}

IN_FLOAT64 = {"rtol": 1e-7, "atol": 1e-9}
SAM_IN_FLOAT64 = {"rtol": 0, "atol": 1e-6}
"""pytorch_optimizer takes SAM's gradient norm in float32: the ascent of length 0.1 is right to 1e-7 of itself, and a
machine chooses how it rounds. At curvature 1, 30 updates of 0.05 / (1 - 0.9) carry 1.5e-7 of that into the weights;
one unit in the norm's last place, put in by hand, carries 6e-9."""


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def loss_of(net, index):
    generator = torch.Generator().manual_seed(index)
    inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return nn.functional.cross_entropy(net(inputs), torch.randint(0, 3, (8,), generator=generator))


def gradients(net, index):
    return torch.autograd.grad(loss_of(net, index), list(net.parameters()))


def reference_sgd(weights, grads, velocities):
    """v <- momentum v + (g + decay w);  w <- w - lr v."""
    for w, g, v in zip(weights, grads, velocities, strict=True):
        v.mul_(SETTINGS["momentum"]).add_(g + SETTINGS["weight_decay"] * w)
        w.sub_(SETTINGS["lr"] * v)


@torch.no_grad()
def reference(name, net, steps):
    """Each optimizer's published equations, in plain tensors."""
    weights = list(net.parameters())
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for t in range(1, steps + 1):
        with torch.enable_grad():
            grads = gradients(net, t)
        if name == "sam":
            norm = torch.sqrt(sum(g.square().sum() for g in grads))
            kept = [w.clone() for w in weights]
            for w, g in zip(weights, grads, strict=True):
                w.add_(0.1 * g / norm)
            with torch.enable_grad():
                grads = gradients(net, t)
            for w, old in zip(weights, kept, strict=True):
                w.copy_(old)
        if name == "adamw":
            for w, g, m, v in zip(weights, grads, first, second, strict=True):
                m.lerp_(g, 1 - SETTINGS["momentum"])
                v.lerp_(g * g, 1 - 0.999)
                w.mul_(1 - SETTINGS["lr"] * SETTINGS["weight_decay"])
                denominator = (v / (1 - 0.999**t)).sqrt() + 1e-8
                w.sub_(SETTINGS["lr"] * m / (1 - SETTINGS["momentum"] ** t) / denominator)
        else:
            reference_sgd(weights, grads, first)


def run(net, optimizer, indices):
    for index in indices:

        def backward(index=index):
            loss = loss_of(net, index)
            loss.backward()
            return loss

        step(optimizer, backward)


@pytest.mark.parametrize("name", ["sgd", "sam", "adamw"])
def test_each_follows_its_equations(name):
    net, expected = two_layers(), two_layers()

    run(net, make_optimizer(Recipe(optimizer=name, **SETTINGS), net), range(1, 31))
    reference(name, expected, 30)

    for parameter, other in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, **(SAM_IN_FLOAT64 if name == "sam" else IN_FLOAT64))


def test_nesterovs_momentum_looks_ahead():
    net, expected = two_layers(), two_layers()
    run(net, make_optimizer(Recipe(optimizer="sgd", nesterov=True, **SETTINGS), net), range(1, 31))
    velocities = [torch.zeros_like(w) for w in expected.parameters()]
    for index in range(1, 31):
        for w, g, v in zip(expected.parameters(), gradients(expected, index), velocities, strict=True):
            with torch.no_grad():
                g += SETTINGS["weight_decay"] * w
                v.mul_(SETTINGS["momentum"]).add_(g)
                w.sub_(SETTINGS["lr"] * (g + SETTINGS["momentum"] * v))

    for parameter, other in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, **IN_FLOAT64)


def test_muon_turns_matrices_along_their_orthogonal_factor_and_treats_the_rest_as_adamw_does():
    net, adamw = two_layers(), two_layers()
    recipe = Recipe(optimizer="muon", **SETTINGS)
    before = [p.detach().clone() for p in net.parameters()]
    run(net, make_optimizer(recipe, net), [1])
    run(adamw, make_optimizer(Recipe(optimizer="adamw", **SETTINGS), adamw), [1])

    for old, new, other, gradient in zip(
        before, net.parameters(), adamw.parameters(), gradients(two_layers(), 1), strict=True
    ):
        if old.dim() == 1:
            torch.testing.assert_close(new, other, **IN_FLOAT64)
            continue
        # The first Nesterov momentum is a multiple of the gradient; five iterations in bf16 come near its factor U V^T,
        # but for a direction without any gradient: those of logits sum to 0.
        u, values, v = torch.linalg.svd(gradient, full_matrices=False)
        rank = int((values > 1e-9 * values[0]).sum())
        size = SETTINGS["lr"] * 0.2 * max(old.shape) ** 0.5
        update = (old * (1 - SETTINGS["lr"] * SETTINGS["weight_decay"]) - new.detach()) / size
        assert torch.linalg.svdvals(update)[:rank].sub(1).abs().max() < 0.45
        assert nn.functional.cosine_similarity(update.flatten(), (u[:, :rank] @ v[:rank]).flatten(), 0) > 0.8


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_on_bit_for_bit_from_its_state(name):
    net = two_layers()
    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), net)
    run(net, optimizer, range(10))
    resumed = two_layers()
    resumed.load_state_dict(net.state_dict())
    other = make_optimizer(
        Recipe(optimizer=name, lr=1.0, momentum=0.0, weight_decay=0.0), resumed
    )  # its settings are restored too
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    run(net, optimizer, range(10, 20))
    run(resumed, other, range(10, 20))

    for parameter, continued in zip(resumed.parameters(), net.parameters(), strict=True):
        assert torch.equal(parameter, continued)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_strides_do_not_matter(name, memory_format):
    """A fused update pairs the wrong numbers where gradient or momentum lies otherwise than the parameter."""

    def trained(memory_format, restore_contiguous):
        torch.manual_seed(0)
        net = model_factory("small-cnn")(10, 3, 16).to(memory_format=memory_format).double()
        optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), net)
        for index in range(6):
            images = torch.randn(8, 3, 16, 16, dtype=torch.float64).to(memory_format=memory_format)
            labels = torch.randint(0, 10, (8,))

            def backward(images=images, labels=labels):
                nn.functional.cross_entropy(net(images), labels).backward()

            step(optimizer, backward)
            if restore_contiguous and index == 2:
                state = optimizer.state_dict()
                for entry in state["state"].values():
                    entry.update({key: value.contiguous() for key, value in entry.items() if value.dim()})
                optimizer.load_state_dict(state)
        return [parameter.detach() for parameter in net.parameters()]

    expected = trained(torch.contiguous_format, restore_contiguous=False)
    for parameter, other in zip(trained(memory_format, restore_contiguous=True), expected, strict=True):
        torch.testing.assert_close(parameter, other, **(SAM_IN_FLOAT64 if name == "sam" else IN_FLOAT64))


@pytest.mark.parametrize(("name", "passes"), [("sgd", 1), ("adamw", 1), ("sam", 2)])
def test_a_step_clears_old_gradients_and_returns_the_first_passs_result(name, passes):
    net = two_layers()
    optimizer = make_optimizer(Recipe(optimizer=name, **SETTINGS), net)
    results = []

    def backward():
        assert all(p.grad is None for p in net.parameters())
        loss_of(net, 0).backward()
        results.append(loss_of(net, 0).item())
        return results[-1]

    step(optimizer, backward)
    del results[:]
    returned = step(optimizer, backward)

    assert len(results) == passes
    assert returned == results[0]


@pytest.mark.parametrize(("name", "updates"), [("sgd", 1), ("adamw", 1), ("sam", 2)])
def test_batch_norm_follows_both_of_sams_passes(name, updates):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()

    run(net, make_optimizer(Recipe(optimizer=name, **SETTINGS), net), [0])

    assert net[1].num_batches_tracked.item() == updates


def test_frozen_parameters_stay():
    for name in OPTIMIZERS:
        net = two_layers()
        net[0].requires_grad_(False)
        before = net[0].weight.clone()
        run(net, make_optimizer(Recipe(optimizer=name, **SETTINGS), net), range(3))
        assert torch.equal(net[0].weight, before)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sdg", {}, r"optimizer 'sdg' is unknown; did you mean 'sgd'\?"),
        ("rmsprop!", {}, "choose from sgd, sam, adamw"),
        ("sgd", {"lr": 0.0}, r"lr is 0\.0; it must be a finite number, above 0"),
        ("sam", {"lr": -1.0}, "lr is"),
        ("adamw", {"lr": math.nan}, "lr is nan"),
        ("sgd", {"lr": math.inf}, "lr is inf"),
        ("sgd", {"momentum": 1.0}, r"momentum is 1\.0; it must be a finite number, at least 0 and below 1"),
        ("adamw", {"momentum": -0.1}, "momentum is"),
        ("sgd", {"momentum": math.nan}, "momentum is nan"),
        ("sgd", {"weight_decay": -1e-4}, "weight_decay is"),
        ("sam", {"weight_decay": math.nan}, "weight_decay is nan"),
    ],
)
def test_wrong_settings_are_refused(name, changes, message):
    with pytest.raises(InputError, match=message):
        Recipe.of({"optimizer": name, **SETTINGS, **changes})


def test_a_network_with_nothing_to_train_is_refused():
    with pytest.raises(InputError, match="no trainable parameter"):
        make_optimizer(Recipe(optimizer="sgd", **SETTINGS), two_layers().requires_grad_(False))


def test_only_sam_pays_for_importing_its_package():
    script = (
        "import sys; from torch import nn; from warmstart.training.optimizers import make_optimizer, step\n"
        "from warmstart.training.recipe import Recipe\n"
        "for name in ('sgd', 'adamw'):\n"
        "    net = nn.Linear(2, 2); o = make_optimizer(Recipe(optimizer=name), net)\n"
        "    step(o, lambda: None)\n"
        "print('pytorch_optimizer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
