"""The five definitions in circulation (see `warmstart.methods.shrink_perturb.VARIANTS`), each against its formula."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import reference
import warmstart as ws
from networks import assert_same, batches_for, cnn, mlp, snapshot, trained
from warmstart.training.optimizers import make_optimizer, step
from warmstart.training.recipe import Recipe

WEIGHTS = {"0.weight", "0.bias", "3.weight", "3.bias", "8.weight", "8.bias"}
GAINS = {"1.weight", "1.bias", "4.weight", "4.bias"}


def prepared():
    model = trained(cnn(), batches_for((3, 8, 8), 4))
    return model, copied(model.state_dict())


def fresh_network():
    model = cnn()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_mean):
            tensor.normal_(generator=generator)
    return model


def copied(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def wide():
    """Enough weights for tight statistics, and gains to see whether these get noise."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(300, 400), nn.LayerNorm(400), nn.Linear(400, 300))


def assert_gaussian(noise, std):
    """Mean, spread and kurtosis within five standard errors."""
    noise = noise.double().flatten()
    n = noise.numel()
    assert abs(noise.mean()) < 5 * std / math.sqrt(n)
    assert noise.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n))
    kurtosis = ((noise - noise.mean()) / noise.std()).pow(4).mean()
    assert kurtosis.item() == pytest.approx(3, abs=5 * math.sqrt(24 / n))


@pytest.mark.parametrize("variant", reference.SHRINK_AND_NOISE)
def test_variants_with_noise_add_it_to_the_shrunk_weights(variant):
    shrink, std = reference.SHRINK_AND_NOISE[variant]
    model = wide()
    before = copied(model.state_dict())
    ws.shrink_perturb_(model, variant=variant, generator=torch.Generator().manual_seed(1))
    after = model.state_dict()
    noise = {name: after[name] - shrink * before[name] for name in before}
    assert_gaussian(torch.cat([noise["0.weight"].flatten(), noise["2.weight"].flatten()]), std)
    assert_gaussian(torch.cat([noise["0.bias"], noise["2.bias"]]), std)
    together = torch.stack([noise["0.weight"].flatten(), before["0.weight"].flatten()])
    assert abs(torch.corrcoef(together)[0, 1]) < 5 / math.sqrt(together.shape[1]), "noise depends on no weight"
    if variant == "dash":
        assert torch.equal(after["1.weight"], before["1.weight"]), "the DASH paper leaves norm layers"
        assert torch.equal(after["1.bias"], before["1.bias"])
    else:
        assert_gaussian(torch.cat([noise["1.weight"], noise["1.bias"]]), std)


def test_the_defaults_are_those_of_the_dash_paper():
    model, twin = cnn(), cnn()
    ws.shrink_perturb_(model, generator=torch.Generator().manual_seed(0))
    ws.shrink_perturb_(twin, 0.3, 0.01, variant="dash", generator=torch.Generator().manual_seed(0))
    assert_same(snapshot(model), snapshot(twin))


@pytest.mark.parametrize("variant", ["dash", "renate", "hare-tortoise", "ash"])
def test_a_dry_run_reports_the_same_and_changes_nothing(variant):
    model = trained(cnn(), batches_for((3, 6, 6), 4))
    other = {"hare-tortoise": copied(dict(cnn().named_parameters())), "ash": cnn()}.get(variant)
    before, random = snapshot(model), torch.get_rng_state()
    tried = ws.shrink_perturb_(model, variant=variant, other=other, apply=False)
    assert_same(snapshot(model), before)
    assert torch.equal(torch.get_rng_state(), random)
    done = ws.shrink_perturb_(model, variant=variant, other=other)
    assert (tried.layers, tried.left_alone, tried.applied, done.applied) == (done.layers, done.left_alone, False, True)


def test_without_noise_it_is_the_control_uniform_shrinking():
    model, before = prepared()
    report = ws.shrink_perturb_(model, shrink=0.3, noise_std=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] * 0.3 if name in WEIGHTS else before[name]), name
    assert {layer.name for layer in report.layers} == WEIGHTS
    assert all(layer.mean == 0.3 for layer in report.layers)


def test_behind_batch_norm_uniform_shrinking_keeps_the_function():
    """Once statistics are the batch's own: why uniform shrinking is the control of DASH's direction."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-12), nn.ReLU(), nn.Flatten())
    inputs = torch.randn(16, 3, 6, 6)
    before = model(inputs)
    ws.shrink_perturb_(model, noise_std=0)
    torch.testing.assert_close(model(inputs), before, rtol=1e-4, atol=1e-4)


def test_ash_is_0_4_w_plus_0_1_fresh_of_everything_with_fresh_buffers():
    model, before = prepared()
    fresh = fresh_network()
    untouched = snapshot(fresh)
    ws.shrink_perturb_(model, variant="ash", other=fresh)
    shrink, blend = reference.SHRINK_AND_BLEND["ash"]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, shrink * before[name] + blend * fresh.get_parameter(name))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, fresh.get_buffer(name)), name
    assert_same(untouched, snapshot(fresh))
    trained(model, batches_for((3, 8, 8), 2))
    assert_same(untouched, snapshot(fresh))


def test_hare_tortoise_goes_back_to_the_first_weights_by_0_8():
    model, before = prepared()
    first = copied(fresh_network().state_dict())
    untouched = copied(first)
    ws.shrink_perturb_(model, variant="hare-tortoise", other=first)
    shrink, blend = reference.SHRINK_AND_BLEND["hare-tortoise"]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, shrink * before[name] + blend * first[name])
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    trained(model, batches_for((3, 8, 8), 2))
    assert all(torch.equal(untouched[name], first[name]) for name in first)


def stage_of(model, optimizer, seed=0):
    first = copied(model.state_dict())
    return ws.Stage(2, 8, 8, list, None, fresh_network, first, torch.Generator().manual_seed(seed), optimizer)


def trained_by(backward, optimizer, model, method=None):
    """Ten updates of a network, whose loss is what ``backward`` is called with; in the end its parameters."""
    stage = stage_of(model, optimizer)
    for inputs, targets in batches_for((6,), 10):

        def update(inputs=inputs, targets=targets):
            backward(cross_entropy(model(inputs), targets), model)
            if method is not None:
                method.after_backward(model, stage)

        step(optimizer, update)
        if method is not None:
            method.after_step(model, stage)
    return [parameter.detach() for parameter in model.parameters()]


def plainly(loss, model):
    loss.backward()


def with_penalty(loss, model):
    (loss + 5e-4 / 2 * sum(parameter.square().sum() for parameter in model.parameters())).backward()


@pytest.mark.parametrize("own", [0.0, 2e-4, 5e-4, 1e-2])
def test_dohare_is_sgds_weight_decay_through_its_momentum(own):
    """Without the noise: SGD with momentum 0.9 and weight decay 5e-4, whatever part of that it has itself."""

    def optimizer(model, decay):
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=decay)

    method = ws.ShrinkPerturb(noise_std=0.0, variant="dohare")
    ours, theirs, without = mlp(), mlp(), mlp()
    found = trained_by(plainly, optimizer(ours, own), ours, method)
    expected = trained_by(plainly, optimizer(theirs, max(own, 5e-4)), theirs)
    undecayed = trained_by(plainly, optimizer(without, 0.0), without)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    assert (undecayed[0] - expected[0]).abs().max() > 1e-5, "else this would test nothing"


def test_dohares_decay_is_in_both_passes_of_sam():
    """As a penalty's gradient, which SAM takes before and after its ascent."""
    recipe = Recipe(optimizer="sam", lr=0.05, momentum=0.9)
    ours, theirs = mlp(), mlp()
    found = trained_by(plainly, make_optimizer(recipe, ours), ours, ws.ShrinkPerturb(noise_std=0.0, variant="dohare"))
    expected = trained_by(with_penalty, make_optimizer(recipe, theirs), theirs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_dohares_noise_has_std_1e_5_on_every_parameter_and_nothing_else_follows_an_update():
    model = wide()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = copied(model.state_dict())
    ws.ShrinkPerturb(variant="dohare").after_step(model, stage_of(model, optimizer))
    noise = torch.cat([(p - before[name]).flatten() for name, p in model.named_parameters() if "weight" in name])
    assert_gaussian(noise, 1e-5)
    assert (model[1].bias - before["1.bias"]).std().item() == pytest.approx(1e-5, rel=0.2)


def test_dohare_with_a_factor_multiplies_by_it_after_the_update_and_leaves_the_gradient():
    model = mlp()
    cross_entropy(model(torch.randn(8, 6)), torch.randint(0, 4, (8,))).backward()
    method, stage = ws.ShrinkPerturb(0.5, 0.0, "dohare"), stage_of(model, None)
    before, gradients = copied(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    method.after_backward(model, stage)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    method.after_step(model, stage)
    assert all(torch.equal(p, before[name] * 0.5) for name, p in model.named_parameters())


def test_dohare_leaves_frozen_layers():
    model = mlp()
    model[0].requires_grad_(False)
    before = copied(model.state_dict())
    ws.ShrinkPerturb(variant="dohare").after_step(model, stage_of(model, None))
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[3].weight, before["3.weight"])


def test_ash_starts_the_optimizer_anew_and_the_other_variants_keep_it():
    for variant in ("dash", "ash", "hare-tortoise", "renate"):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        cross_entropy(model(torch.randn(8, 6)), torch.randint(0, 4, (8,))).backward()
        optimizer.step()
        stage = stage_of(model, optimizer)
        stage.fresh = mlp
        ws.ShrinkPerturb(variant=variant).on_new_data(model, stage)
        assert bool(optimizer.state) == (variant != "ash"), variant


def without_buffers():
    model = cnn()
    model[1] = nn.BatchNorm2d(8, track_running_stats=False)
    return model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shrink": -0.1}, "shrink is -0.1"),
        ({"shrink": math.nan}, "shrink is nan"),
        ({"noise_std": -1.0}, "noise_std is -1.0"),
        ({"noise_std": math.inf}, "noise_std is inf"),
        ({"variant": "asch"}, "did you mean 'ash'"),
        ({"variant": "ash"}, r"other=make_model\(\)"),
        ({"variant": "ash", "other": {}}, r"other=make_model\(\)"),
        ({"variant": "ash", "other": without_buffers()}, "they differ in 1.num_batches_tracked"),
        ({"variant": "hare-tortoise"}, "other=first_state_dict"),
        ({"variant": "hare-tortoise", "other": mlp().state_dict()}, "other holds no 0.weight of shape"),
        ({"variant": "renate", "other": {}}, "leave other out"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_changes(arguments, message):
    model, _ = prepared()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.shrink_perturb_(model, **arguments)
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("variant", ["ash", "hare-tortoise"])
def test_the_models_own_weights_cannot_be_blended_into_it(variant):
    """`model.state_dict()` is no copy: a blend with it silently only scales the weights."""
    model, _ = prepared()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match="pass a copy"):
        ws.shrink_perturb_(model, variant=variant, other=model if variant == "ash" else model.state_dict())
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_keep_theirs(dtype):
    model = wide().to(dtype)
    before = copied(model.state_dict())
    ws.shrink_perturb_(model, noise_std=0.1)
    assert all(p.dtype == dtype for p in model.parameters())
    noise = (model[0].weight - 0.3 * before["0.weight"]).double()
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)


def test_tied_weights_are_shrunk_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    before = model[0].weight.detach().clone()
    ws.shrink_perturb_(model, noise_std=0)
    assert torch.equal(model[2].weight, before * 0.3)


def test_spelled_settings_of_dohare_come_back_even_where_they_equal_the_usual_ones():
    usual = ws.ShrinkPerturb(shrink=1 - 5e-7, variant="dohare")
    assert ws.parse_method(str(usual)) == usual != ws.ShrinkPerturb(variant="dohare")


def test_a_seed_where_a_generator_belongs_is_refused_before_anything_changes():
    model = mlp()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=r"generator is a int: pass torch\.Generator\(\)\.manual_seed"):
        ws.shrink_perturb_(model, generator=3)
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("c", [0.2, 0.5, 0.8])
def test_hare_and_tortoises_variant_adds_up_to_one_whatever_the_share(c):
    """FIRE's language runs take c = 0.2 or 0.5:  (1 - c) w + c w_0."""
    model, before = prepared()
    first = copied(cnn().state_dict())
    ws.shrink_perturb_(model, 1 - c, variant="hare-tortoise", other=first)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), (1 - c) * before[name] + c * first[name])
