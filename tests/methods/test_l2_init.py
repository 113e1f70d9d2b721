import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import reference
import reference_regularisers
import warmstart as ws
from networks import assert_same, batches_for, cnn, snapshot, trained


def prepared():
    """A network away from its first weights, its first convolution frozen."""
    batches = batches_for((3, 8, 8), 4)
    model = cnn()
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained(model, batches)
    model[0].requires_grad_(False)
    return model, first, batches[0]


@pytest.mark.parametrize("coef", [0.0, 1e-3, 0.5])
def test_gradients_are_those_of_the_loss_with_half_coef_times_the_squared_distance(coef):
    model, first, (inputs, targets) = prepared()
    model.eval()
    expected = reference.l2_init_gradient(model, cross_entropy(model(inputs), targets), first, coef)
    cross_entropy(model(inputs), targets).backward()
    ws.l2_init_(model, first, coef)
    assert set(expected) == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-5, atol=1e-7)
    assert model[0].weight.grad is None, "frozen parameters are not pulled"


def test_dashs_variant_is_the_squared_sum_of_norms_over_weights_norm_gains_included():
    model, first, (inputs, targets) = prepared()
    cross_entropy(model(inputs), targets).backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    weights = {name: p for name, p in model.named_parameters() if name.endswith("weight") and p.requires_grad}
    penalty = reference_regularisers.dash_l2_penalty(model, first, 1e-2)
    expected = dict(zip(weights, torch.autograd.grad(penalty, list(weights.values())), strict=True))
    ws.l2_init_(model, first, 1e-2, variant="dash")
    assert set(expected) == {"1.weight", "3.weight", "4.weight", "8.weight"}
    for name, gradient in before.items():
        found = model.get_parameter(name).grad
        if name in expected:
            torch.testing.assert_close(found, gradient + expected[name], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(found, gradient), f"{name} is a bias"


def test_dashs_variant_does_not_pull_what_has_not_moved():
    model, first, _ = prepared()
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        model[3].weight.copy_(first["3.weight"])
    ws.l2_init_(model, first, 1e-2, variant="dash")
    assert not model[3].weight.grad.any()
    assert model[8].weight.grad.isfinite().all()


def test_every_parameter_is_pulled_norm_gains_and_biases_included():
    """A public version penalises the last parameter only."""
    model, first, _ = prepared()
    model.zero_grad(set_to_none=True)
    ws.l2_init_(model, first, 2.0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, 2.0 * (parameter - first[name]).detach())


def test_a_strong_pull_alone_brings_the_network_back_to_its_first_weights():
    model, first, _ = prepared()
    model[0].requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    method = ws.L2Init(coef=1.0)
    stage = ws.Stage(2, 8, 8, list, None, cnn, first, torch.Generator(), optimizer)
    assert not torch.allclose(model[0].weight, first["0.weight"])
    for _ in range(40):
        optimizer.zero_grad()
        method.after_backward(model, stage)
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, first[name], rtol=0, atol=1e-6)


def test_one_backward_pass_is_pulled_once_for_tied_weights():
    model, first, _ = prepared()
    model[3].bias = model[1].bias
    ws.l2_init_(model, first, 1.0)
    torch.testing.assert_close(model[1].bias.grad, (model[1].bias - first["1.bias"]).detach())


@pytest.mark.parametrize(
    ("initial", "coef", "message"),
    [
        (lambda model, first: first, -1.0, "coef is -1.0"),
        (lambda model, first: first, math.nan, "coef is nan"),
        (lambda model, first: {}, 1e-3, "no first value for 1.weight"),
        (lambda model, first: {**first, "8.bias": torch.zeros(5)}, 1e-3, "no first value for 8.bias of shape"),
        (lambda model, first: model.state_dict(), 1e-3, "pass a copy"),
    ],
    ids=["negative", "nan", "missing", "other shape", "no copy"],
)
def test_what_is_wrong_is_refused_before_any_gradient_changes(initial, coef, message):
    model, first, (inputs, targets) = prepared()
    cross_entropy(model(inputs), targets).backward()
    before = snapshot(model)
    with pytest.raises(ws.InputError, match=message):
        ws.l2_init_(model, initial(model, first), coef)
    assert_same(before, snapshot(model))
